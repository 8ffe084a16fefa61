"""Perplexity against its definition, and its windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sparity_edge import Generator, OptionError
from sparity_edge.perplexity import perplexity

TEXT = "A stone lay in the river. The river went round it, year after year, and took a little. " * 9


@pytest.fixture(scope="module")
def generator(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint("llama_untied"), dtype="f32", threads=2) as loaded:
        yield loaded


def losses(generator: Generator, ids: list[int]) -> np.ndarray:
    logits = np.concatenate([np.array(part, dtype=np.float64) for part in generator.logits(ids)])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return -np.log([probabilities[i, ids[i + 1]] for i in range(len(ids) - 1)])


def test_it_is_the_exponential_of_the_mean_loss(generator: Generator) -> None:
    ids = generator.tokenizer.encode(TEXT, add_special_tokens=False)
    windows = [ids[start : start + 32] for start in (0, 64)]
    means = [losses(generator, window).mean() for window in windows]
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


def test_an_empty_text(generator: Generator) -> None:
    with pytest.raises(OptionError, match="fewer than two"):
        perplexity(generator, "", window=20)
