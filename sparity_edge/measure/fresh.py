"""Memory and start-up of a model in a process of its own, where nothing else has been loaded.

The peak of a process that holds several models, or has packed one, says nothing of a single one.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sparity_edge.errors import SparityError

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator

LATER = 8  # tokens decoded after the prompt

Found = TypeVar("Found")


def in_fresh_process(function: Callable[..., Found], *arguments: Any) -> Found:
    """What a function of a module returns, or raises, in a new process.

    Raises:
        SparityError: the process ended without a result, as when the system is out of memory.
    """
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(its, function, arguments), daemon=True)
    process.start()
    its.close()
    try:
        succeeded, found = ours.recv()
    except EOFError:
        raise SparityError(
            "The process that measures memory ended early; there may not be enough memory."
        ) from None
    finally:
        process.terminate()
        process.join()
    if not succeeded:
        raise found
    result: Found = found
    return result


def _send(there: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    try:
        there.send((True, function(*arguments)))
    except Exception as error:
        there.send((False, error))


def peak_memory(
    path: Path,
    threads: int,
    prompt: int,
    depth: int = 0,
    cache_dtype: str | None = None,
    dial: dict[str, Any] | None = None,
) -> dict[str, int]:
    """Bytes that this process holds while it decodes; call it in a fresh one.

    Args:
        path: a packed folder.
        threads: how many compute.
        prompt: tokens to read.
        depth: positions of the KV cache in use before them.
        cache_dtype: as for `Generator.load`.
        dial: the fields of a `Setting`: plan, sparsity and level.
    """
    import psutil

    from sparity_edge.generation.generator import Generator
    from sparity_edge.measure.context import fill_cache
    from sparity_edge.measure.decoding import time_sequence
    from sparity_edge.plans.setting import Setting

    setting = Setting(**(dial or {}))
    with Generator.load(path, threads=threads, cache_dtype=cache_dtype) as generator:
        generator.apply(setting)
        cache = generator.loaded.model.kv_cache
        fill_cache(generator.loaded.model, depth, prompt + LATER)
        time_sequence(generator, [1] * depth + [5] * prompt, LATER)
        found = {
            "weights": _weights(generator),
            "cache": cache.bytes_per_token * len(cache),
            "rss": psutil.Process().memory_info().rss,
            "peak": peak_of_this_process(),
        }
    found["beyond_weights_and_cache"] = found["peak"] - found["weights"] - found["cache"]
    return found


def _weights(generator: Generator) -> int:
    """Bytes of all weights, of what the plan brings along, and of the screen."""
    model = generator.loaded.model
    return int(generator.info()["weight_bytes"]) + model.plan_bytes + model.screen_bytes


def peak_of_this_process() -> int:
    """The most bytes in memory so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; its ru_maxrss counts what the parent held before the exec
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)  # type: ignore[attr-defined,unused-ignore]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
