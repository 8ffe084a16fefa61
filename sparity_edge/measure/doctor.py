"""The examination of this machine: what `sparity-edge doctor` reports.

Facts are gathered section by section into what is ready for JSON (bytes and seconds, None for what
a system does not tell). Nothing is fetched and no model is loaded. What follows from the facts is
said by advice.py.
"""

from __future__ import annotations

import gc
import statistics
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparity_edge.errors import SparityError
from sparity_edge.measure.expected import Expected
from sparity_edge.progress import Progress, silent
from sparity_edge.system import host
from sparity_edge.system.folders import cache_root, work_folders
from sparity_edge.system.leftovers import leftovers
from sparity_edge.system.threads import default_threads, demand_compiler
from sparity_edge.system.version import own_version

PACKAGES = ("numpy", "numba", "llvmlite", "tokenizers", "safetensors", "huggingface-hub")
SECONDS = 2.0  # of reading memory
READING = 0.1  # seconds of one reading; one thread and all threads are interleaved
LEAST_POOL = 128 << 20  # bytes; in less the processor's caches would be measured
SHARE_OF_MEMORY = 4  # the pool takes a quarter of what is available at most


def examine(
    threads: int | None, models: Sequence[Expected], progress: Progress = silent
) -> dict[str, Any]:
    """Everything there is to know about this machine, ready for JSON.

    Args:
        threads: how many to measure with; None: the default.
        models: whose speed is to be estimated.
        progress: told of the measuring.
    """
    from sparity_edge.kernels.simd.cpu import chosen
    from sparity_edge.measure.machine import machine, versions

    count = threads or default_threads()
    facts: dict[str, Any] = {
        "version": own_version(),
        "machine": {**machine(count), "packages": versions(PACKAGES)},
        "kernels": chosen(),
        "cores": {**host.cores(), "default_threads": default_threads()},
        "memory": host.memory(),
        "power": host.power(),
        "storage": {
            "cache": host.folder(cache_root()),
            "kernels": _kernels(),
            "leftovers": _leftovers(),
        },
    }
    facts["problems"] = _problems(facts)
    facts["bandwidth"] = None if facts["problems"] else _bandwidth(count, facts, progress)
    facts["models"] = _models(models, facts["bandwidth"])
    return facts


def _kernels() -> dict[str, Any]:
    """Where machine code is kept, and whether that of this version is there already."""
    from numba import config

    from sparity_edge.kernels.decode.attention import attention_decode
    from sparity_edge.kernels.kernel import cache_of_these_kernels
    from sparity_edge.system.folders import kernel_root

    with cache_of_these_kernels():
        place = Path(config.CACHE_DIR or kernel_root())
    # Numba names an index after each function; every model needs this one.
    compiled = any(place.rglob(f"*.{attention_decode.name}-*.nbi"))
    return {**host.folder(kernel_root()), "compiled": compiled}


def _leftovers() -> list[dict[str, Any]]:
    """What interrupted runs left behind: temporary files and folders of processes that are gone."""
    found = leftovers(work_folders())
    return [{"path": str(path), "bytes": host.bytes_in(path)} for path in found]


def _problems(facts: dict[str, Any]) -> list[str]:
    """What keeps models from running here."""
    found = []
    if struct.calcsize("P") != 8 or sys.byteorder != "little":
        found.append("This processor is not a little-endian one of 64 bits; use another machine.")
    try:
        demand_compiler()
    except SparityError as error:
        found.append(str(error))
    cache = facts["storage"]["cache"]
    if not cache["writable"]:
        found.append(
            f"The cache folder {cache['path']} cannot be written; free the disk, change its "
            "permissions, or let SPARITY_EDGE_CACHE name another folder."
        )
    return found


def _bandwidth(threads: int, facts: dict[str, Any], progress: Progress) -> dict[str, Any] | None:
    """Bytes a second that one thread and all threads read from memory, interleaved.

    None where too little memory is free to measure it.
    """
    from sparity_edge.measure.ceiling import POOL_BYTES, Memory

    spare = min(POOL_BYTES, facts["memory"]["available_bytes"] // SHARE_OF_MEMORY)
    if spare < LEAST_POOL:
        return None
    progress("measuring memory", 0, 1)
    memories = [Memory(threads, spare >> 20 << 20)]
    if threads > 1:
        memories.insert(0, Memory(1, memories[0].nbytes, memories[0]))
    readings = [memory.streaming(READING) for memory in memories]
    samples: list[list[float]] = [[] for _ in memories]
    for read in readings:
        read()  # the first finds memory and threads cold
    start = time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        progress("measuring memory", int(1000 * passed), int(1000 * SECONDS))
        for read, figures in zip(readings, samples):
            figures.append(1e9 * read())
    for memory in memories:
        memory.close()
    result = {
        "threads": threads,
        "pool_bytes": memories[0].nbytes,
        "one_thread_bytes_per_second": round(statistics.median(samples[0])),
        "all_threads_bytes_per_second": round(statistics.median(samples[-1])),
        "slowest_bytes_per_second": round(min(samples[-1])),
        "fastest_bytes_per_second": round(max(samples[-1])),
    }
    del memories, readings
    gc.collect()  # the pool, before anything else wants memory
    return result


def _models(models: Sequence[Expected], bandwidth: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What decoding reaches at most."""
    speed = bandwidth and bandwidth["all_threads_bytes_per_second"]
    return [
        {
            "name": model.name,
            "packed": model.packed,
            "bytes_per_token": model.nbytes,
            "tokens_per_second_at_most": speed and round(speed / model.nbytes, 1),
        }
        for model in models
    ]
