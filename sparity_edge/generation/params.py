"""SamplingParams: how the next token is chosen, as the user asks for it, checked.

Names and meanings are those that local runtimes and the OpenAI API share. This module knows no
arithmetic (that is `sampler`) and imports no NumPy, so that the command line can show the
defaults at once.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparity_edge.config.values import show
from sparity_edge.errors import OptionError

# A stop string is looked for after every token, so its length and number are bounded.
MAX_STOP_STRINGS = 64
MAX_STOP_LENGTH = 1000
MAX_TOP_LOGPROBS = 20  # as in the OpenAI API
MAX_SEED = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen; every value is checked when the object is made.

    Raises:
        OptionError: a value has the wrong type or lies outside its range.

    Example:
        >>> SamplingParams(temperature=0, stop="\\n").stop
        ('\\n',)
        >>> SamplingParams(top_p=1.5)
        Traceback (most recent call last):
        sparity_edge.errors.OptionError: top_p=1.5 is out of range; use a number from 0 to 1.
    """

    temperature: float = 0.7  # 0 to 100; 0 takes the most probable token (greedy)
    top_k: int = 40  # keep that many most probable tokens; 0: all
    top_p: float = 0.95  # keep the fewest tokens that hold this share of probability; 1: all
    min_p: float = 0.0  # drop tokens below this share of the best one's probability; 0: none
    repetition_penalty: float = 1.0  # divides positive logits of tokens in prompt or answer; 1: off
    presence_penalty: float = 0.0  # taken off the logit of every token sampled before
    frequency_penalty: float = 0.0  # taken off once for each time the token was sampled
    seed: int | None = None  # None: another text each time
    stop: Sequence[str] = ()  # the text ends in front of the first of these; stored as a tuple
    max_tokens: int | None = None  # None: until the model ends or the context is full
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)  # -inf bans a token
    ignore_eos: bool = False  # go on after the model's end-of-text token
    logprobs: bool = False  # give each token's log-probability, whatever has to be read for it
    top_logprobs: int = 0  # give so many of the most likely tokens with each step, at most 20
    stop_loops: bool = False  # end a text that repeats itself word for word without end

    def __post_init__(self) -> None:
        """Check each value and bring it into one plain type."""
        put = object.__setattr__  # the dataclass is frozen
        put(self, "temperature", _real("temperature", self.temperature, 0, 100))
        put(self, "top_k", _integer("top_k", self.top_k, 0, 1 << 31))
        put(self, "top_p", _real("top_p", self.top_p, 0, 1))
        put(self, "min_p", _real("min_p", self.min_p, 0, 1))
        penalty = _real("repetition_penalty", self.repetition_penalty, 0.01, 100)
        put(self, "repetition_penalty", penalty)
        put(self, "presence_penalty", _real("presence_penalty", self.presence_penalty, -100, 100))
        put(
            self, "frequency_penalty", _real("frequency_penalty", self.frequency_penalty, -100, 100)
        )
        if self.seed is not None:
            put(self, "seed", _integer("seed", self.seed, 0, MAX_SEED))
        put(self, "stop", _stop(self.stop))
        if self.max_tokens is not None:
            put(self, "max_tokens", _integer("max_tokens", self.max_tokens, 1, 1 << 31))
        put(self, "logit_bias", _logit_bias(self.logit_bias))
        put(self, "top_logprobs", _integer("top_logprobs", self.top_logprobs, 0, MAX_TOP_LOGPROBS))
        for name in ("logprobs", "ignore_eos", "stop_loops"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name}={show(getattr(self, name))} is neither true nor false.")


def _real(name: str, value: Any, least: float, most: float) -> float:
    number = value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise OptionError(f"{name}={show(value)} is not a number.")
    if not least <= number <= most:  # NaN fails both comparisons
        raise OptionError(
            f"{name}={show(value)} is out of range; use a number from {least} to {most}."
        )
    return float(number)


def _integer(name: str, value: Any, least: int, most: int) -> int:
    number = value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise OptionError(f"{name}={show(value)} is not a whole number.")
    if not least <= number <= most:
        raise OptionError(
            f"{name}={show(value)} is out of range; use a whole number from {least} to {most}."
        )
    return int(number)


def _stop(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise OptionError(f"stop={show(value)} is neither a string nor a list of strings.")
    if len(texts) > MAX_STOP_STRINGS:
        raise OptionError(f"stop has {len(texts)} strings; use at most {MAX_STOP_STRINGS}.")
    for text in texts:
        if not text:
            raise OptionError("stop has an empty string, which would end every text at once.")
        if len(text) > MAX_STOP_LENGTH:
            raise OptionError(
                f"stop has a string of {len(text)} characters; use at most {MAX_STOP_LENGTH}."
            )
    return tuple(texts)


def _logit_bias(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise OptionError(f"logit_bias={show(value)} does not map token ids to numbers.")
    bias: dict[int, float] = {}
    for token, amount in value.items():
        token = _integer("logit_bias token id", token, 0, 1 << 31)
        if amount == -math.inf:
            bias[token] = -math.inf
        else:
            bias[token] = _real(f"logit_bias of token {token}", amount, -10_000, 10_000)
    return bias
