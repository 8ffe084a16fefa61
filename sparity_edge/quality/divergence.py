"""KL divergence of a model with a sparsity plan from the dense model, window by window.

KL(dense || sparse) in nats at every position but the first token of a window, top-1 agreement, and
the perplexity of both. Dense and sparse passes are interleaved on one window, so one model in
memory is enough, and so is the room for one window's logits however long the text. Knows nothing
of how vectors are sparsified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sparity_edge.errors import OptionError
from sparity_edge.logits import kl_divergence, log_normaliser, target_logits
from sparity_edge.plans.setting import DENSE, Setting
from sparity_edge.progress import Progress, silent
from sparity_edge.quality.perplexity import (
    PerplexityResult,
    cut_windows,
    exponential,
    positions,
    standard_error,
)
from sparity_edge.terminal.json_output import finite

if TYPE_CHECKING:
    from sparity_edge.arrays import Doubles, Floats
    from sparity_edge.generation.generator import Generator


@dataclass(frozen=True)
class DivergenceResult:
    """Distance to the dense model; standard errors come from the spread of the windows' means."""

    kl_mean: float  # nats a position
    kl_stderr: float  # NaN for a single window, as all standard errors
    kl_p99: float  # 99th percentile over positions
    top1_agreement: float  # share of positions at which both rank the same token first
    perplexity_ratio: float  # sparse / dense
    perplexity_ratio_stderr: float  # of paired windows: far smaller than that of either
    dense: PerplexityResult
    sparse: PerplexityResult

    def to_dict(self) -> dict[str, float | None]:
        """Flat and ready for JSON: the keys of the perplexities are those of the sparse model."""
        values = {name: getattr(self, name) for name in FIGURES}
        values["dense_perplexity"] = self.dense.perplexity
        values["dense_stderr"] = self.dense.stderr
        ready: dict[str, float | None] = finite({**values, **self.sparse.to_dict()})
        return ready


FIGURES = (
    "kl_mean",
    "kl_stderr",
    "kl_p99",
    "top1_agreement",
    "perplexity_ratio",
    "perplexity_ratio_stderr",
)


def divergences(
    generator: Generator,
    text: str,
    settings: Sequence[Setting],
    *,
    reference: Generator | None = None,
    window: int | None = None,
    windows: int | None = None,
    stride: int = 1,
    progress: Progress = silent,
) -> list[DivergenceResult]:
    """Measure positions of the dial against the dense model, which reads each window once for all.

    Args:
        generator: loaded with `sparse_prefill=True`, or else all texts are read dense; its KV
            cache is emptied, and it is left dense.
        text: as for `perplexity`; so are `window`, `windows` and `stride`.
        settings: what to measure.
        reference: whose dense predictions count, such as those of the same model in f32; None:
            `generator` itself.
        progress: told of passes over a window.

    Raises:
        OptionError: an argument is out of range, the text is too short, or a setting cannot be
            honoured.
    """
    reference = reference or generator
    parts = cut_windows(generator, text, window, windows, stride)
    if reference.config.vocab_size != generator.config.vocab_size:
        raise OptionError("The two models have different vocabularies; compare like with like.")
    dense, tallies = _Dense(reference), [_Tally() for _ in settings]
    steps, done = len(parts) * (1 + len(settings)), 0
    try:
        for ids in parts:
            progress("divergence", done, steps)
            dense.read(ids)
            for setting, tally in zip(settings, tallies):
                progress("divergence", done := done + 1, steps)
                generator.apply(setting)
                tally.read(generator, dense)
            done += 1
    finally:
        generator.apply(DENSE)
    progress("divergence", steps, steps)
    return [tally.result(dense) for tally in tallies]


class _Dense:
    """The dense model's predictions for the window at hand, and its losses so far."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._room = np.empty((0, generator.config.vocab_size), dtype=np.float32)
        self.ids: list[int] = []
        self.normaliser: Doubles = np.empty(0)
        self.means: list[float] = []
        self.active = 0.0  # sum over the tokens read
        self.tokens = 0  # scored

    def read(self, ids: list[int]) -> None:
        """Take in the next window."""
        self._generator.apply(DENSE)
        self.ids = ids
        if len(self._room) < len(ids):
            self._room = np.empty((len(ids), self._room.shape[1]), dtype=np.float32)
        for position, logits in positions(self._generator, ids):
            self._room[position : position + len(logits)] = logits
            self.active += len(logits) * self._generator.active_weight_fraction
        scored = self._room[: len(ids) - 1]
        self.normaliser = log_normaliser(scored)
        self.means.append(float(np.mean(self.normaliser - target_logits(scored, ids[1:]))))
        self.tokens += len(scored)

    def logits(self, part: slice) -> Floats:
        """Of some positions, (tokens, vocab_size)."""
        return self._room[part]


@dataclass
class _Tally:
    """What one setting adds up to."""

    kl: list[Doubles] = field(default_factory=list)  # by window
    means: list[float] = field(default_factory=list)  # of the losses, by window
    agreed: int = 0
    active: float = 0.0

    def read(self, generator: Generator, dense: _Dense) -> None:
        """Compare the predictions for the window at hand."""
        ids, total = dense.ids, 0.0
        kl = np.empty(len(ids) - 1)
        for position, logits in positions(generator, ids):
            self.active += len(logits) * generator.active_weight_fraction
            part = slice(position, min(position + len(logits), len(kl)))
            other = logits[: part.stop - part.start]
            expected = dense.logits(part)
            normaliser = log_normaliser(other)
            targets = ids[part.start + 1 : part.stop + 1]
            total += float((normaliser - target_logits(other, targets)).sum())
            kl[part] = kl_divergence(expected, dense.normaliser[part], other, normaliser)
            self.agreed += int((expected.argmax(axis=1) == other.argmax(axis=1)).sum())
        self.kl.append(kl)
        self.means.append(total / len(kl))

    def result(self, dense: _Dense) -> DivergenceResult:
        """After the last window."""
        kl = np.concatenate(self.kl)
        ratio = exponential(float(np.mean(self.means) - np.mean(dense.means)))
        paired = [mine - its for mine, its in zip(self.means, dense.means)]
        read = dense.tokens + len(dense.means)
        return DivergenceResult(
            kl_mean=float(kl.mean()),
            kl_stderr=standard_error([float(part.mean()) for part in self.kl]),
            kl_p99=float(np.percentile(kl, 99)),
            top1_agreement=self.agreed / dense.tokens,
            perplexity_ratio=ratio,
            perplexity_ratio_stderr=(
                ratio * standard_error(paired) if np.isfinite(ratio) else np.nan
            ),
            dense=PerplexityResult.of(dense.means, dense.tokens, dense.active / read),
            sparse=PerplexityResult.of(self.means, dense.tokens, self.active / read),
        )
