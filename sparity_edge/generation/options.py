"""The arguments of `Generator.load`: checked, and filled in where none was given.

Imports neither NumPy nor a model: a mistake is told before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from sparity_edge.choices import DEFAULT_MAX_CONTEXT, KV_DTYPES, MAX_LEVEL
from sparity_edge.errors import OptionError
from sparity_edge.progress import Progress

if TYPE_CHECKING:
    from sparity_edge.config.model_config import ModelConfig


class LoadOptions(TypedDict, total=False):
    """The keyword arguments of `Generator.load`, which says what each one means."""

    dtype: str | None
    threads: int | None
    sparsity: float | None
    plan: str | None
    level: float | None
    force: bool
    sparse_prefill: bool
    max_context: int | None
    cache_dtype: str | None
    cache_dir: str | Path | None
    cache_dir_mb: int
    full_head: bool
    speculation: bool
    draft: str | Path | None
    offline: bool
    lora: str | Sequence[str]
    progress: Progress
    notify: Callable[[str], None]


def checked_dial(sparsity: float | None, level: float | None) -> float:
    """The one of sparsity and level that was given, which no plan takes beyond MAX_LEVEL."""
    if sparsity is not None and level is not None:
        raise OptionError("sparsity and level were both given; give one of them.")
    name, value = ("sparsity", sparsity) if level is None else ("level", level)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_LEVEL:
        raise OptionError(f"{name}={value!r} is not a number from 0 to {MAX_LEVEL}.")
    return float(value)


def checked_context(asked: int | None, config: ModelConfig) -> int:
    """The number of positions asked for, or the default."""
    most = config.model_context
    if asked is None:
        return min(most, DEFAULT_MAX_CONTEXT)
    if isinstance(asked, bool) or not isinstance(asked, int) or not 2 <= asked <= most:
        raise OptionError(
            f"max_context={asked!r} is not a whole number from 2 to {most}, the model's context."
        )
    return asked


def checked_kv_dtype(asked: str | None) -> None:
    """Refuse what is no number format of the KV cache."""
    if asked not in (None, *KV_DTYPES):
        raise OptionError(f"cache_dtype={asked!r} is none of {', '.join(KV_DTYPES)}.")
