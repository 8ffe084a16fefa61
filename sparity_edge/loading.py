"""The arguments of `Generator.load`: checked, and filled in where none was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparity_edge.errors import OptionError

if TYPE_CHECKING:
    from sparity_edge.config import ModelConfig

DEFAULT_MAX_CONTEXT = 32768  # positions, where the model has more: bounds what a chat may take
MAX_THREADS = 1024


def checked_threads(threads: int | None) -> int:
    """The number of threads asked for, or the default."""
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise OptionError(f"threads={threads!r} is not a whole number from 1 to {MAX_THREADS}.")
    return threads


def default_threads() -> int:
    """The physical cores this process may use; a core's second thread adds no bandwidth."""
    import psutil

    logical, physical = psutil.cpu_count() or 1, psutil.cpu_count(logical=False) or 1
    allowed = logical
    if hasattr(psutil.Process, "cpu_affinity"):
        allowed = len(psutil.Process().cpu_affinity())
    return max(1, min(allowed, physical))


def refuse_sparsity(sparsity: float | None) -> None:
    """No packed model carries a sparsity plan yet, so there is nothing that could be skipped."""
    if not sparsity:
        return
    raise OptionError(
        f"sparsity={sparsity!r}: this model carries no sparsity plan; leave sparsity at 0."
    )


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
