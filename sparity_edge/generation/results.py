"""What generation gives back: steps, completions, and the statistics of what they cost.

Data only, and the meter that adds it up. Knows nothing of models or of how tokens are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Statistics:
    """What a sequence has cost so far; times are the model's, without those of the caller.

    Example:
        >>> stats = Statistics(8, cached_tokens=6, generated_tokens=5, prefill_seconds=0.1,
        ...                    decode_seconds=0.2)
        >>> stats.prefill_tokens_per_second, stats.decode_tokens_per_second
        (20.0, 20.0)
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, found in the KV cache instead of being read again
    generated_tokens: int = 0
    prefill_seconds: float = 0.0  # up to the logits of the first token
    decode_seconds: float = 0.0  # all tokens after the first
    # Bytes of decoder weights read for the tokens after the first / all bytes of them.
    active_weight_fraction: float = 1.0
    # Of the same tokens: active channels / channels at every site that was sparsified.
    densities: Mapping[str, float] = field(default_factory=dict)
    drafted_tokens: int = 0  # guesses that were read
    accepted_tokens: int = 0  # of them, those that were right and are part of the text
    decode_passes: int = 0  # over the weights, for the tokens after the first

    @property
    def tokens_per_pass(self) -> float:
        """Tokens after the first by the passes that they took; 1 before there are any."""
        return (self.generated_tokens - 1) / self.decode_passes if self.decode_passes else 1.0

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens that had to be read, a second; 0 before there are any."""
        read = self.prompt_tokens - self.cached_tokens
        return read / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first, a second; 0 before there are any."""
        later = self.generated_tokens - 1
        return later / self.decode_seconds if later > 0 and self.decode_seconds > 0 else 0.0


@dataclass(frozen=True)
class Step:
    """One token of a sequence.

    `text` is what can be shown by now: it may be empty while a character or a stop string is
    undecided, and the last step carries what was held back.

    Example:
        >>> (step,) = generator.stream([1, 2], SamplingParams(max_tokens=1, ignore_eos=True))
        >>> step.finish_reason, step.logprob <= 0
        ('length', True)
    """

    text: str
    token_id: int
    # Natural logarithm, under the model's own distribution, whatever a schema allows. None behind a
    # screened LM head, where few logits are known, and of tokens that a schema, regex or grammar
    # forces, unless `logprobs` or `top_logprobs` asks for it.
    logprob: float | None
    finish_reason: str | None  # None, "stop" (end of text or stop string), "length" or "loop"
    stats: Statistics
    # Token id -> natural logarithm, the most likely first; as many as `top_logprobs` asks for.
    top_logprobs: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """A whole generated text.

    Example:
        >>> completion = generator.generate([1, 2], SamplingParams(max_tokens=3, ignore_eos=True))
        >>> completion.finish_reason, completion.stats.generated_tokens
        ('length', 3)
    """

    text: str
    token_ids: tuple[int, ...]  # end of text included
    finish_reason: str  # "stop", "length", or "loop" (`SamplingParams.stop_loops`)
    stats: Statistics
    logprobs: tuple[float | None, ...] = ()  # of each token, as in `Step`
    # Of each token's place, as in `Step`; empty mappings unless `top_logprobs` asks for some.
    top_logprobs: tuple[Mapping[int, float], ...] = ()

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Completion:
        """What the steps of one sequence, at least one, add up to."""
        return cls(
            text="".join(step.text for step in steps),
            token_ids=tuple(step.token_id for step in steps),
            finish_reason=steps[-1].finish_reason or "length",
            stats=steps[-1].stats,
            logprobs=tuple(step.logprob for step in steps),
            top_logprobs=tuple(step.top_logprobs for step in steps),
        )


class Meter:
    """Adds up what a sequence costs.

    Args:
        prompt_tokens: length of the prompt.
    """

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.cached = 0
        self._prefill: float | None = None
        self._decode = 0.0
        self._active: list[float] = []
        self._densities: dict[str, float] = {}  # sums over the passes after the first
        self.drafted = self.accepted = 0  # guesses that were read, and those that were right

    def add(
        self, seconds: float, active: float, densities: Mapping[str, float], drafted: int = 0
    ) -> None:
        """Count one pass; the first is that of the prompt.

        Args:
            seconds: that the pass took.
            active: active weight fraction of the pass.
            densities: site -> active channels / channels.
            drafted: guesses that it read.
        """
        self.drafted += drafted
        if self._prefill is None:
            self._prefill = seconds
        else:
            self._decode += seconds
            self._active.append(active)
            for site, density in densities.items():
                self._densities[site] = self._densities.get(site, 0.0) + density

    def go_on(self, seconds: float, accepted: bool) -> None:
        """Count what choosing a token took, and whether it is what was guessed."""
        self._decode += seconds
        self.accepted += accepted

    def statistics(self, generated: int) -> Statistics:
        """Everything so far; `generated` is the number of tokens after the prompt."""
        active = sum(self._active) / len(self._active) if self._active else 1.0
        return Statistics(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached,
            generated_tokens=generated,
            prefill_seconds=self._prefill or 0.0,
            decode_seconds=self._decode,
            active_weight_fraction=active,
            densities={site: total / len(self._active) for site, total in self._densities.items()},
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
            decode_passes=len(self._active),
        )
