"""Perplexity: how surprised a model is by a text, window by window.

The protocol is that of the usual WikiText figures: the text is tokenised whole and without special
tokens, cut into windows that each start cold, and the first token of a window is not scored. The
arithmetic on logits is in float64, a few rows at a time, so that a large vocabulary costs no
memory. A Generator loaded with `sparse_prefill=True` is measured with its plan applied at every
position but the first four of a window; any other reads texts dense.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparity_edge.errors import OptionError
from sparity_edge.logits import log_normaliser, target_logits
from sparity_edge.progress import Progress, silent

if TYPE_CHECKING:
    from sparity_edge.arrays import Floats
    from sparity_edge.generation.generator import Generator

DEFAULT_WINDOW = 1024  # tokens
LEAST_SCORED = 2  # the perplexity of a single token says nothing of a text


@dataclass(frozen=True)
class PerplexityResult:
    """exp of the mean negative log-likelihood, and what it stands on."""

    perplexity: float  # inf where the mean loss is beyond the range of exp
    stderr: float  # of the perplexity, from the spread of the windows' means; NaN for one window
    tokens: int  # scored
    windows: int
    active_weight_fraction: float  # mean over all tokens read

    def to_dict(self) -> dict[str, float]:
        """Ready for JSON but for a NaN."""
        return asdict(self)

    @classmethod
    def of(cls, means: Sequence[float], tokens: int, active: float) -> PerplexityResult:
        """From the windows' mean losses in nats, the tokens scored and the active fraction."""
        value = exponential(float(np.mean(means)))
        error = value * standard_error(means) if math.isfinite(value) else math.nan
        return cls(value, error, tokens, len(means), active)


def perplexity(
    generator: Generator,
    text: str,
    *,
    window: int | None = None,
    windows: int | None = None,
    stride: int = 1,
    progress: Progress = silent,
) -> PerplexityResult:
    """Measure a text.

    Args:
        generator: whose model is measured; its KV cache is emptied.
        text: at least three tokens; a tail that fills no window is left out, unless it is all.
        window: tokens in a window, at most `generator.max_context`; None: 1024, or the context
            where it is smaller.
        windows: how many to measure; None: all.
        stride: take every stride-th window.
        progress: told of windows.

    Raises:
        OptionError: an argument is out of range, or the text is too short.
    """
    parts = cut_windows(generator, text, window, windows, stride)
    means, active = [], 0.0
    for done, ids in enumerate(parts):
        progress("perplexity", done, len(parts))
        total = 0.0
        for position, logits in positions(generator, ids):
            targets = ids[position + 1 : position + 1 + len(logits)]
            scored = logits[: len(targets)]
            total += float((log_normaliser(scored) - target_logits(scored, targets)).sum())
            active += len(logits) * generator.active_weight_fraction
        means.append(total / (len(ids) - 1))
    progress("perplexity", len(parts), len(parts))
    read = sum(map(len, parts))
    return PerplexityResult.of(means, read - len(parts), active / read)


def cut_windows(
    generator: Generator, text: str, window: int | None, windows: int | None, stride: int
) -> list[list[int]]:
    """The token ids of every window that is to be measured; arguments as for `perplexity`."""
    if window is None:
        window = min(DEFAULT_WINDOW, generator.max_context)
    if not 2 <= window <= generator.max_context:
        raise OptionError(
            f"window={window} is not a whole number from 2 to {generator.max_context}, the context."
        )
    for name, value in (("windows", windows), ("stride", stride)):
        if value is not None and value < 1:
            raise OptionError(f"{name}={value} is not a whole number above 0.")
    ids = generator.tokenizer.encode(text, add_special_tokens=False)
    window = min(window, len(ids))
    starts = range(0, len(ids) - window + 1, window * stride)[:windows] if window else range(0)
    scored = len(starts) * (window - 1)
    if scored < LEAST_SCORED:
        raise OptionError(
            f"The text has {len(ids)} tokens, and fewer than two would be scored, which says "
            "nothing of a text; give a longer one, or longer windows."
        )
    return [ids[start : start + window] for start in starts]


def exponential(x: float) -> float:
    """exp(x), inf where that is beyond the largest float."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def positions(generator: Generator, ids: Sequence[int]) -> Iterator[tuple[int, Floats]]:
    """(first position, logits (tokens, vocab_size)) of each part that the generator reads."""
    position = 0
    for logits in generator.logits(ids):
        yield position, logits
        position += len(logits)


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of independent values; NaN if there is only one."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
