"""Perplexity: how surprised a model is by a text, window by window.

The protocol is that of the usual WikiText figures: the text is tokenised whole and without special
tokens, cut into windows that each start cold, and the first token of a window is not scored.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparity_edge.errors import OptionError
from sparity_edge.progress import Progress, silent

if TYPE_CHECKING:
    from sparity_edge.generate import Generator
    from sparity_edge.kernels.buffers import Floats


@dataclass(frozen=True)
class PerplexityResult:
    """exp of the mean negative log-likelihood, and what it stands on."""

    perplexity: float
    stderr: float  # of the perplexity, from the spread of the windows' means
    tokens: int  # scored
    windows: int
    active_weight_fraction: float

    def to_dict(self) -> dict[str, float]:
        """Ready for JSON."""
        return asdict(self)


def perplexity(
    generator: Generator,
    text: str,
    *,
    window: int = 1024,
    windows: int | None = None,
    stride: int = 1,
    progress: Progress = silent,
) -> PerplexityResult:
    """Measure a text.

    Args:
        generator: whose model is measured; its cache is emptied.
        text: at least two tokens; a rest that fills no window is left out, unless it is all.
        window: tokens in a window, at most `generator.max_context`.
        windows: how many to measure; None: all.
        stride: take every stride-th window.
        progress: told of windows.

    Raises:
        OptionError: an argument is out of range, or the text is too short.
    """
    if not 2 <= window <= generator.max_context:
        raise OptionError(
            f"window={window} is not a whole number from 2 to {generator.max_context}, the context."
        )
    for name, value in (("windows", windows), ("stride", stride)):
        if value is not None and value < 1:
            raise OptionError(f"{name}={value} is not a whole number above 0.")
    ids = generator.tokenizer.encode(text, add_special_tokens=False)
    if len(ids) < 2:
        raise OptionError("The text has fewer than two tokens; give a longer one.")
    window = min(window, len(ids))
    starts = range(0, len(ids) - window + 1, window * stride)[:windows]
    means, active = [], 0.0
    for done, start in enumerate(starts):
        progress("perplexity", done, len(starts))
        part = ids[start : start + window]
        means.append(float(np.mean(_losses(generator, part))))
        active += generator.active_weight_fraction
    progress("perplexity", len(starts), len(starts))
    mean = float(np.mean(means))
    spread = float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return PerplexityResult(
        perplexity=math.exp(mean),
        stderr=math.exp(mean) * spread,
        tokens=(window - 1) * len(starts),
        windows=len(starts),
        active_weight_fraction=active / len(starts),
    )


def _losses(generator: Generator, ids: list[int]) -> Floats:
    """Negative log-likelihood (len(ids) - 1,) of every token after the first."""
    losses, position = [], 0
    for logits in generator.logits(ids):
        targets = ids[position + 1 : position + 1 + len(logits)]
        rows = logits[: len(targets)].astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        chosen = rows[np.arange(len(targets)), targets]
        losses.append(np.log(np.exp(rows).sum(axis=1)) - chosen)
        position += len(logits)
    return np.concatenate(losses)
