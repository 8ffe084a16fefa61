"""What measuring a decoder needs: a cache of any depth, bytes of a token, peak memory.

Looks below the public surface of Generator, as a benchmark has to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sparity_edge.model import Model


def fill_cache(model: Model, depth: int, room: int) -> None:
    """Pretend that `depth` tokens have been read; keys and values of noise cost the same.

    Args:
        model: whose cache it is.
        depth: positions to occupy, by token 1.
        room: positions to make room for behind them.
    """
    from sparity_edge.kernels.cached import write

    cache = model.cache
    cache.trim(0)
    cache.reserve(min(cache.max_context, depth + room))
    random = np.random.default_rng(0)
    for layer in range(model.config.num_hidden_layers):
        for array in cache.layer(layer):
            shape = (len(array), min(64, depth), model.config.head_dim)
            noise = random.standard_normal(shape, dtype=np.float32)
            for start in range(0, depth, 64):
                stop = min(depth, start + 64)
                write(array[:, start:stop], noise[:, : stop - start])
    cache.ids.extend([1] * depth)


def bytes_of_a_token(model: Model, depth: int) -> int:
    """What decoding has to read: every weight but the embedding's other rows, and the cache."""
    head = model.decoder.lm_head.layout.nbytes
    return int(model.block_bytes + head + depth * model.cache.bytes_per_token)


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
