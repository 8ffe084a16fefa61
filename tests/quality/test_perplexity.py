"""Perplexity and divergence against their definitions, and their windows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from plan_families import family

from converters.pack import convert
from converters.pack_options import PackOptions
from converters.store import open_any
from sparity_edge import Generator, OptionError
from sparity_edge.logits import PART_LOGITS, kl_divergence, log_normaliser, parts
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import add_plan
from sparity_edge.plans.setting import DENSE, Setting
from sparity_edge.quality.divergence import _Tally, divergences
from sparity_edge.quality.perplexity import PerplexityResult, perplexity

TEXT = "A stone lay in the river. The river went round it, year after year, and took a little. " * 9
HALF = Setting("by-hand", level=0.6)


@pytest.fixture(scope="module")
def generator(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Generator]:
    """A tiny model with a plan, sparse wherever it reads more than four tokens."""
    source = open_any(str(checkpoint("llama_untied")))
    options = PackOptions("f32", layout="mixed")
    path = convert(source, tmp_path_factory.mktemp("packs") / "mixed", options)
    source.close()
    add_plan(open_folder(path), family(open_packed(path), "mixed"))
    with Generator.load(path, threads=2, sparse_prefill=True) as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def _begin_dense(generator: Generator) -> None:
    generator.apply(DENSE)


def probabilities(generator: Generator, ids: list[int], setting: Setting = DENSE) -> np.ndarray:
    """After each token but the last, (len(ids) - 1, vocab_size), by the plain definition."""
    generator.apply(setting)
    logits = np.concatenate([np.array(part, dtype=np.float64) for part in generator.logits(ids)])
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[:-1]


def losses(expected: np.ndarray, ids: list[int]) -> np.ndarray:
    return -np.log([row[token] for row, token in zip(expected, ids[1:])])


def windows_of(generator: Generator, *starts: int) -> list[list[int]]:
    ids = generator.tokenizer.encode(TEXT, add_special_tokens=False)
    return [ids[start : start + 32] for start in starts]


def test_it_is_the_exponential_of_the_mean_loss(generator: Generator) -> None:
    means = [
        losses(probabilities(generator, ids), ids).mean() for ids in windows_of(generator, 0, 64)
    ]
    result = perplexity(generator, TEXT, window=32, windows=2, stride=2)
    assert result.perplexity == pytest.approx(np.exp(np.mean(means)), rel=1e-5)
    spread = np.std(means, ddof=1) / np.sqrt(2)
    assert result.stderr == pytest.approx(np.exp(np.mean(means)) * spread, rel=1e-3)
    assert (result.tokens, result.windows) == (62, 2)
    assert result.active_weight_fraction == 1


def test_a_text_shorter_than_a_window_is_one_window(generator: Generator) -> None:
    ids = generator.tokenizer.encode("Rain fell.", add_special_tokens=False)
    assert perplexity(generator, "Rain fell.", window=200).tokens == len(ids) - 1


@pytest.mark.parametrize(
    "arguments", [{"window": 1}, {"window": 10**9}, {"windows": 0}, {"stride": 0}, {"stride": -1}]
)
def test_arguments_out_of_range(generator: Generator, arguments: dict[str, int]) -> None:
    with pytest.raises(OptionError):
        perplexity(generator, TEXT, **arguments)  # type: ignore[arg-type]
    with pytest.raises(OptionError):
        divergences(generator, TEXT, [DENSE], **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "R", "Ra"])
def test_a_text_of_which_one_token_would_be_scored_at_most(generator: Generator, text: str) -> None:
    assert len(generator.tokenizer.encode(text, add_special_tokens=False)) == len(text)
    with pytest.raises(OptionError, match="fewer than two would be scored"):
        perplexity(generator, text, window=20)
    with pytest.raises(OptionError, match="fewer than two would be scored"):
        divergences(generator, text, [DENSE], window=20)
    with pytest.raises(OptionError, match="fewer than two would be scored"):
        perplexity(generator, TEXT, window=2, windows=1)
    assert perplexity(generator, "Ray", window=20).tokens == 2


def test_the_context_is_the_window_where_it_is_smaller(checkpoint: Callable[[str], Path]) -> None:
    with Generator.load(checkpoint("llama_untied"), threads=1, max_context=40) as small:
        measured = perplexity(small, TEXT)
        assert measured == perplexity(small, TEXT, window=40)
        assert divergences(small, TEXT, [DENSE])[0].dense == measured
        with pytest.raises(OptionError, match="window=41"):
            perplexity(small, TEXT, window=41)


def test_a_loss_beyond_the_range_of_exp_is_infinite_perplexity() -> None:
    result = PerplexityResult.of([709.0, 711.0, 713.0], 30, 1.0)
    assert result.perplexity == math.inf
    assert math.isnan(result.stderr)
    assert PerplexityResult.of([1.0], 30, 1.0).perplexity == math.e
    hopeless = _Tally(kl=[np.ones(4)], means=[2000.0])
    dense = SimpleNamespace(means=[1.0], tokens=4, active=5.0)
    found = hopeless.result(dense)  # type: ignore[arg-type]
    assert (found.perplexity_ratio, found.sparse.perplexity) == (math.inf, math.inf)
    assert math.isnan(found.perplexity_ratio_stderr)


def test_divergence_equals_its_definition(generator: Generator) -> None:
    windows = windows_of(generator, 0, 64)
    kl, agreed, dense, sparse = [], [], [], []
    for ids in windows:
        p, q = probabilities(generator, ids), probabilities(generator, ids, HALF)
        kl.append((p * np.log(p / q)).sum(axis=1))
        agreed.append(p.argmax(axis=1) == q.argmax(axis=1))
        dense.append(losses(p, ids).mean())
        sparse.append(losses(q, ids).mean())
    (result,) = divergences(generator, TEXT, [HALF], window=32, windows=2, stride=2)
    every = np.concatenate(kl)
    assert every.mean() > 0.01, "nothing was sparse"
    assert result.kl_mean == pytest.approx(every.mean(), rel=1e-4)
    assert result.kl_p99 == pytest.approx(np.percentile(every, 99), rel=1e-4)
    error = np.std([part.mean() for part in kl], ddof=1) / np.sqrt(2)
    assert result.kl_stderr == pytest.approx(error, rel=1e-3)
    assert result.top1_agreement == np.concatenate(agreed).mean()
    assert result.dense.perplexity == pytest.approx(np.exp(np.mean(dense)), rel=1e-5)
    assert result.sparse.perplexity == pytest.approx(np.exp(np.mean(sparse)), rel=1e-5)
    changes = np.subtract(sparse, dense)
    assert result.perplexity_ratio == pytest.approx(np.exp(changes.mean()), rel=1e-5)
    paired = np.exp(changes.mean()) * np.std(changes, ddof=1) / np.sqrt(2)
    assert result.perplexity_ratio_stderr == pytest.approx(paired, rel=1e-3)
    assert result.sparse.tokens == 62
    # The first four of a window's 32 positions are read dense.
    assert 4 / 32 < result.sparse.active_weight_fraction < 0.95
    assert result.dense.active_weight_fraction == 1


def test_dense_does_not_differ_from_itself(generator: Generator) -> None:
    told: list[tuple[int, int]] = []
    dense, sparse, again = divergences(
        generator,
        TEXT,
        [DENSE, HALF, DENSE],
        window=32,
        windows=2,
        progress=lambda _, done, total: told.append((done, total)),
    )
    assert dense.kl_mean == dense.kl_p99 == again.kl_mean == 0
    assert dense.top1_agreement == dense.perplexity_ratio == 1
    assert sparse.kl_mean > 0
    assert generator.plan is None, "it is left dense"
    assert told == [*((done, 8) for done in range(8)), (8, 8)]


def test_another_model_may_be_the_reference(
    generator: Generator, checkpoint: Callable[[str], Path]
) -> None:
    with Generator.load(checkpoint("llama_untied"), dtype="int8", threads=1) as other:
        (result,) = divergences(generator, TEXT, [DENSE], reference=other, window=32, windows=1)
    assert 0 < result.kl_mean < 0.1
    assert result.dense.perplexity != result.sparse.perplexity


def test_result_is_ready_for_json(generator: Generator) -> None:
    (result,) = divergences(generator, TEXT, [HALF], window=32, windows=1)
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["kl_stderr"] is values["stderr"] is values["dense_stderr"] is None
    assert values["perplexity"] == result.sparse.perplexity
    assert math.isnan(result.kl_stderr)


@pytest.mark.parametrize("width", [1, 7, 1000, PART_LOGITS + 3])
def test_blocks_cover_all_rows(width: int) -> None:
    covered = [row for part in parts(9, width) for row in range(9)[part]]
    assert covered == list(range(9))


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, 0, -1e4], [-3e4, -3e4, -3e4]], dtype=np.float32)
    assert log_normaliser(logits) == pytest.approx([1e4, -3e4 + math.log(3)])
    kl = kl_divergence(logits, log_normaliser(logits), logits[::-1], log_normaliser(logits[::-1]))
    assert np.isfinite(kl).all()
    assert kl[0] == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("dense", DENSE),
        ("auto:0.25", Setting("auto", sparsity=0.25)),
        ("chess@0.5", Setting("chess", level=0.5)),
    ],
)
def test_settings_are_written_and_read(text: str, setting: Setting) -> None:
    assert Setting.parse(text) == setting
    assert str(setting) == text


@pytest.mark.parametrize("text", ["", "auto", ":0.2", "auto:much", "chess@"])
def test_what_is_no_setting(text: str) -> None:
    with pytest.raises(OptionError, match=r"auto:0\.25"):
        Setting.parse(text)


def test_a_setting_without_a_name_is_the_default_plan(generator: Generator) -> None:
    unnamed = Setting(sparsity=0.2)
    assert str(unnamed) == "auto:0.2"
    generator.apply(unnamed)
    assert generator.plan == "by-hand"  # the only one


def test_kl_command(
    generator: Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sparity_edge.cli.main import main

    text = tmp_path / "text"
    text.write_text(TEXT, encoding="utf-8")
    words: list[Any] = ["kl", generator.path, "--text", text, "--window", 32, "--windows", 2]
    words += ["--plan", "by-hand", "--level", 0.6]
    assert main([*map(str, words), "--json"]) == 0
    (expected,) = divergences(generator, TEXT, [HALF], window=32, windows=2)
    shown = json.loads(capsys.readouterr().out)
    assert shown.pop("kl_mean") == pytest.approx(expected.kl_mean, rel=1e-4)
    assert set(shown) == set(expected.to_dict()) - {"kl_mean"}
    assert main(list(map(str, words))) == 0
    assert f"{expected.kl_mean:.4f} ± {expected.kl_stderr:.4f} nats" in capsys.readouterr().out
    assert main(["kl", str(generator.path), "--text", str(text)]) == 1
    assert "--sparsity" in capsys.readouterr().err
