"""Calibration from text to stored plans, the trace under it, and the commands around it."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from packing import pack_folder

from converters import calibrate as calibration
from converters.calibrate import _needs, calibrate
from converters.calibration.windows import read_documents, token_windows
from converters.methods import chosen_methods
from converters.methods.family import SERVED_BY
from converters.pack_options import PackOptions
from converters.plan_folders import find_folders
from converters.store import prepare
from sparity_edge import OptionError, SourceError
from sparity_edge.cli.commands import plan as plan_commands
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.model.layer_run import LayerRun, Vectors
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import plan_names, read_plan
from sparity_edge.progress import QUIET
from sparity_edge.text.default_text import default_documents
from sparity_edge.text.tokenizer import Tokenizer

METHODS = ["chess", "cats", "teal", "centred"]
TOKENS = 4 * 256


def packed_as(checkpoint: Callable[[str], Path], tmp_path: Path, layout: str) -> Path:
    """A packed folder of a test's own, so that it may store plans there."""
    return pack_folder(checkpoint("llama_gqa"), tmp_path / layout, "int8", layout)


def test_plans_go_where_they_can_be_used(checkpoint: Callable[[str], Path]) -> None:
    model = str(checkpoint("llama_gqa"))
    stored = calibrate(model, tokens=TOKENS, methods=METHODS, dtype="f32", threads=2)
    assert [each.family.name for each in stored] == METHODS
    for each in stored:
        family = read_plan(open_folder(each.folder), each.family.name)
        layout = open_packed(each.folder).manifest["options"]["layout"]
        assert layout in SERVED_BY[family.layout]
        for name, table in each.family.tables.items():
            np.testing.assert_array_equal(family.tables[name], table)
        assert family.active[0] == 1
        assert 0.2 < family.most < 0.9
        assert family.notes["tokens"] == TOKENS
    plain, centred = stored[0].family, stored[3].family
    assert not plain.means
    assert len(centred.means) == 2
    # M has to be paid for: the dial of centred gates begins where they save something.
    assert centred.levels[1] > plain.levels[1]
    assert float(centred.active[1]) == pytest.approx(1, abs=0.01)


def test_the_same_text_gives_the_same_plan(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = packed_as(checkpoint, tmp_path, "mixed")
    contents = []
    for threads in (1, 3):
        calibrate(str(folder), tokens=TOKENS, methods=["centred"], threads=threads)
        contents.append((folder / "plan-centred.safetensors").read_bytes())
    assert contents[0] == contents[1]


def test_all_methods_that_a_packed_folder_serves(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = packed_as(checkpoint, tmp_path, "input")
    calibrate(str(folder), tokens=TOKENS)
    assert plan_names(folder) == ["auto", "teal", "teal-profile"]


@pytest.mark.parametrize("layout", ["mixed", "input"])
def test_the_default_plan(layout: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = packed_as(checkpoint, tmp_path, layout)
    (stored,) = calibrate(str(folder), tokens=TOKENS, methods=["auto"], threads=1)
    assert (stored.folder, stored.family.name) == (folder, "auto")
    assert plan_names(folder) == ["auto"]


def test_plans_share_a_pack_where_they_can() -> None:
    def pack(layout: str) -> Path:
        return Path(layout)

    needs = {"auto": ("mixed", "input"), "chess": ("neurons", "mixed"), "teal": ("input",)}
    found = find_folders("no/model", None, needs, None, pack, explicit=True)
    assert {name: str(path) for name, path in found.items()} == {
        "auto": "mixed", "chess": "mixed", "teal": "input"
    }  # fmt: skip


def test_methods_of_neurons_alone_leave_attention_as_dense_packs_have_it(
    checkpoint: Callable[[str], Path],
) -> None:
    model = str(checkpoint("llama_gqa"))

    def pack(layout: str) -> Path:
        return Path(layout)

    for names, layout in ((["centred"], "ffn"), (["centred", "chess", "cats"], "neurons")):
        needs = _needs(model, None, chosen_methods(names), QUIET)
        found = find_folders(model, None, needs, None, pack, explicit=True)
        assert {str(path) for path in found.values()} == {layout}


def test_a_trace_ends_where_the_model_does(checkpoint: Callable[[str], Path]) -> None:
    packed = open_packed(prepare(str(checkpoint("mistral_window")), PackOptions(dtype="f32")))
    machine = ThreadedMachine(2)
    model = Model(packed, machine, 256)
    windows = np.random.default_rng(0).integers(5, 280, (2, 256))
    middles = []
    with LayerRun(model, windows) as run:
        for layer in range(run.layers):
            before = run.residual.copy()
            run.run(layer, lambda _: None, advance=False)
            np.testing.assert_array_equal(run.residual, before)

            def keep(vectors: Vectors) -> None:
                middles.append((vectors.gate * vectors.up, vectors.mlp_mid.copy()))

            run.run(layer, keep)
    for product, middle in middles:
        np.testing.assert_allclose(product, middle, rtol=1e-5, atol=1e-6)
    assert len(model.kv_cache) == 0
    last = run.residual[1].astype(np.float64)
    norm = last / np.sqrt((last**2).mean(axis=1, keepdims=True) + model.config.rms_norm_eps)
    norm *= packed.tensors["model.norm.weight"]
    head = prepared_head(packed)
    expected = np.concatenate([part.copy() for part in model.read_all_logits(windows[1].tolist())])
    np.testing.assert_allclose(norm @ head.T, expected, atol=1e-4 * np.abs(expected).max())
    machine.close()


def prepared_head(packed: object) -> np.ndarray:
    from converters.numbers.layout_bytes import unpack_matrix

    stored = packed.tensors["lm_head.weight"]  # type: ignore[attr-defined]
    return np.asarray(unpack_matrix(stored.data, stored.layout))


def test_ctrl_c_leaves_nothing_behind(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = packed_as(checkpoint, tmp_path, "neurons")

    def interrupt(label: str, done: int, total: int) -> None:
        if label == "calibrate" and done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(str(folder), tokens=TOKENS, methods=["chess"], progress=interrupt)
    assert plan_names(folder) == []
    monkeypatch.setattr(calibration, "fit_methods", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        calibrate(str(folder), tokens=TOKENS, methods=["chess"])


def test_documents(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_text("One.\n", encoding="utf-8")
    lines.write_text('{"text": "Two."}\n\n{"text": "Three.", "id": 3}\n', encoding="utf-8")
    assert list(read_documents([plain, lines])) == ["One.\n", "Two.", "Three."]
    assert len(default_documents()) > 50


def test_documents_are_joined_by_the_end_of_text(checkpoint: Callable[[str], Path]) -> None:
    tokenizer = Tokenizer.from_folder(checkpoint("llama_gqa"))
    first, second = (tokenizer.encode(text) for text in ("The little model", "reads"))
    windows = token_windows(tokenizer, (4,), ["The little model", "reads"] * 99, 4 * 16, window=16)
    assert windows.shape == (4, 16)
    end = tokenizer.encode("</s>")
    assert windows.reshape(-1)[: len(first) + len(second) + 2].tolist() == [
        *first, *end, *second, *end
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Far too short.", "give more text"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_texts_that_will_not_do(
    content: bytes | None, message: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    folder = packed_as(checkpoint, tmp_path, "neurons")
    with pytest.raises(OptionError, match=message) as caught:
        calibrate(str(folder), texts=[text], methods=["chess"])
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("line", ["{", '{"words": 1}', '{"text": 1}', "[1]", "[" * 100_000])
def test_lines_that_are_no_documents(line: str, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "fine"}\n' + line, encoding="utf-8")
    with pytest.raises(OptionError, match="line 2"):
        list(read_documents([path]))


def test_arguments_that_will_not_do(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = packed_as(checkpoint, tmp_path, "input")
    dense = packed_as(checkpoint, tmp_path, "dense")
    for model, arguments, message in (
        (folder, {"tokens": 100}, "too few"),
        (folder, {"methods": ["magic"]}, "no calibration method"),
        (folder, {"methods": ["chess"]}, "--layout neurons"),
        (folder, {"threads": 0}, "threads"),
        (dense, {}, "--layout"),
        (checkpoint("llama_gqa"), {"methods": ["teal"], "layout": "mixed"}, "--layout input"),
    ):
        with pytest.raises(OptionError, match=message):
            calibrate(str(model), **{"tokens": TOKENS, **arguments})  # type: ignore[arg-type]


def test_numbers_that_are_not_finite(checkpoint: Callable[[str], Path]) -> None:
    packed = open_packed(prepare(str(checkpoint("llama_tied")), PackOptions(dtype="f32")))
    packed.tensors["model.layers.1.input_layernorm.weight"][0] = np.inf  # type: ignore[index]
    windows = np.random.default_rng(0).integers(5, 280, (4, 64))
    with pytest.raises(SourceError, match="Layer 1"):
        calibration.fit_methods(packed, windows, [], threads=1)


def test_commands(
    checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(packed_as(checkpoint, tmp_path, "mixed"))
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    other = packed_as(checkpoint, fresh, "neurons")
    common = {"verbose": 0, "json": False, "model": folder}
    plan_commands.plan_list(Namespace(**common))
    assert "sparity-edge calibrate" in capsys.readouterr().out
    options = {"text": [], "tokens": TOKENS, "methods": ["chess"], "layout": None, "dtype": None}
    here = {"threads": 1, "workers": 1, "cluster": None, "offline": True}
    plan_commands.calibrate(Namespace(**common, **options, **here))
    assert "chess" in capsys.readouterr().out
    plan_commands.plan_list(Namespace(**{**common, "json": True}))
    (facts,) = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["layout"]) == ("chess", "neurons")
    plan_commands.plan_show(Namespace(**common, name="chess"))
    assert "q_proj" in capsys.readouterr().out
    plan_commands.plan_show(Namespace(**{**common, "json": True}, name="chess"))
    assert json.loads(capsys.readouterr().out)["notes"]["tokens"] == TOKENS
    file = str(Path(folder) / "plan-chess.safetensors")
    plan_commands.plan_add(Namespace(**{**common, "model": str(other)}, file=file))
    assert plan_names(other) == ["chess"]
    plan_commands.plan_remove(Namespace(**common, name="chess"))
    assert plan_names(Path(folder)) == []


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("plan_list", {"model": "nobody/nothing"}, "calibrate"),
        ("plan_show", {"name": "magic"}, "no plan 'magic'"),
        ("plan_remove", {"name": "magic"}, "no plan 'magic'"),
        ("plan_add", {"file": "plan.bin"}, "plan-NAME"),
        ("plan_add", {"file": "nowhere/plan-x.safetensors"}, "plan-NAME"),
    ],
)
def test_commands_refuse(
    command: str,
    arguments: dict[str, str],
    message: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folder = str(packed_as(checkpoint, tmp_path, "neurons"))
    with pytest.raises(OptionError, match=message):
        getattr(plan_commands, command)(Namespace(**{"model": folder, "json": False, **arguments}))
