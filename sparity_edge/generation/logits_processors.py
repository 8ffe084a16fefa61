"""Logits processors: functions of one's own that change the logits before a token is chosen.

As in mlx-lm: each gets the ids so far and the logits, and gives back logits; the next one gets
those. What they give is checked, since a wrong shape would only show as a wrong token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sparity_edge.arrays import Floats
from sparity_edge.errors import OptionError

# (ids of prompt and answer so far, logits (vocab_size,) float32, its own to change) -> logits
LogitsProcessor = Callable[[Sequence[int], Floats], Floats]
# Of a batch: for all prompts, or a list for each of them.
BatchProcessors = Sequence[LogitsProcessor] | Sequence[Sequence[LogitsProcessor]]


def checked_processors(processors: Sequence[LogitsProcessor]) -> tuple[LogitsProcessor, ...]:
    """The processors as they are.

    Raises:
        OptionError: one of them cannot be called.
    """
    if not isinstance(processors, Sequence):
        raise OptionError(f"logits_processors={processors!r} is no list of functions.")
    for index, each in enumerate(processors):
        if not callable(each):
            raise OptionError(f"logits_processors[{index}]={each!r} is no function.")
    return tuple(processors)


def processors_by_prompt(processors: BatchProcessors, prompts: int) -> list[Any]:
    """The processors of each prompt of a batch.

    Args:
        processors: functions for all prompts, or a list of functions for each.
        prompts: how many there are.

    Raises:
        OptionError: there are not as many lists as prompts.
    """
    if not any(isinstance(each, Sequence) for each in processors):
        return [processors] * prompts
    if len(processors) != prompts:
        raise OptionError(
            f"{prompts} prompts and {len(processors)} lists of logits_processors were given; give "
            "functions for all prompts or as many lists as prompts."
        )
    return list(processors)


def processed(processors: Sequence[LogitsProcessor], ids: Sequence[int], logits: Floats) -> Floats:
    """What the processors make of the logits, one after another.

    Args:
        processors: what to call.
        ids: of prompt and answer so far.
        logits: (vocab_size,) float32; not modified.

    Raises:
        OptionError: one gives back something else than numbers of that shape and dtype, or no
            token is left.
    """
    seen = tuple(ids)
    result = logits.copy()
    for index, process in enumerate(processors):
        given = process(seen, result)
        wrong = not isinstance(given, np.ndarray) or (
            (given.shape, given.dtype) != (logits.shape, logits.dtype)
        )
        if wrong or np.isnan(given).any():
            raise OptionError(
                f"logits_processors[{index}] gave {_described(given)}; it has to give float32 "
                f"numbers of shape {logits.shape}, -inf for tokens that are banned."
            )
        result = given
    if np.isneginf(result).all():
        raise OptionError("logits_processors ban every token; leave at least one.")
    return result


def _described(given: object) -> str:
    if not isinstance(given, np.ndarray):
        return type(given).__name__
    return f"{given.dtype} of shape {given.shape}{' with NaN' if _has_nan(given) else ''}"


def _has_nan(given: Any) -> bool:
    return given.dtype.kind == "f" and bool(np.isnan(given).any())
