"""The arguments of `Generator.load`: checked, and filled in where none was given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import OptionError

if TYPE_CHECKING:
    from sparity_edge.config.model_config import ModelConfig
    from sparity_edge.packed.folder import PackedModel

DEFAULT_MAX_CONTEXT = 32768  # positions, where the model has more: bounds what a chat may take
MAX_THREADS = 1024
CACHE_DTYPES = ("f32", "bf16", "int8")
MAX_LEVEL = 0.9  # of a sparsity plan: beyond it nothing that can be read is left


def checked_threads(threads: int | None) -> int:
    """The number of threads asked for, or the default."""
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise OptionError(f"threads={threads!r} is not a whole number from 1 to {MAX_THREADS}.")
    return threads


def demand_compiler() -> None:
    """Refuse to run where Numba is told not to compile: kernels work on addresses.

    Raises:
        OptionError: NUMBA_DISABLE_JIT is set.
    """
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        raise OptionError("NUMBA_DISABLE_JIT is set, and kernels have to be compiled; unset it.")


def default_threads() -> int:
    """The physical cores this process may use; a core's second thread adds no bandwidth."""
    import psutil

    logical, physical = psutil.cpu_count() or 1, psutil.cpu_count(logical=False) or 1
    allowed = logical
    if hasattr(psutil.Process, "cpu_affinity"):
        allowed = len(psutil.Process().cpu_affinity())
    return max(1, min(allowed, physical))


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
    most = config.max_position_embeddings
    if asked is None:
        return min(most, DEFAULT_MAX_CONTEXT)
    if isinstance(asked, bool) or not isinstance(asked, int) or not 2 <= asked <= most:
        raise OptionError(
            f"max_context={asked!r} is not a whole number from 2 to {most}, the model's context."
        )
    return asked


def default_cache_dtype(packed: PackedModel) -> str:
    """The number format of keys and values: exact where the weights are, else half the bytes."""
    from sparity_edge.packed.layout import PackedMatrix

    matrices = [each for each in packed.tensors.values() if isinstance(each, PackedMatrix)]
    return "f32" if all(each.layout.dtype == "f32" for each in matrices) else "bf16"


def checked_cache_dtype(asked: str | None) -> None:
    """Refuse what is no number format of a cache."""
    if asked not in (None, *CACHE_DTYPES):
        raise OptionError(f"cache_dtype={asked!r} is none of {', '.join(CACHE_DTYPES)}.")


def checked_ids(prompt: Sequence[Any], vocab_size: int) -> list[int]:
    """A prompt that is no text as token ids, or what is wrong with it."""
    for token in prompt:
        if isinstance(token, bool) or not hasattr(token, "__index__"):
            raise OptionError(
                f"{token!r} is neither a message nor a token id; give a text, messages or ids."
            )
        if not 0 <= int(token) < vocab_size:
            raise OptionError(
                f"Token id {int(token)} lies outside the vocabulary, which ends at "
                f"{vocab_size - 1}."
            )
    return [int(token) for token in prompt]
