"""Contexts to measure behind: of text where what is skipped depends on it, else of noise.

The text is what every Python has, its help texts, from the end: calibration reads them from the
beginning.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparity_edge.errors import OptionError
from sparity_edge.progress import Progress, silent

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator
    from sparity_edge.model.model import Model

READ_AT_ONCE = 256  # tokens of a context between two reports of progress


def text_ids(generator: Generator, count: int) -> list[int]:
    """`count` token ids of a text; over again where it is too short."""
    from sparity_edge.text.default_text import default_documents

    try:
        documents = default_documents()[::-1]
    except OptionError:  # a Python without help texts
        documents = [__doc__]
    ids: list[int] = []
    for document in documents:
        ids += generator.tokenizer.encode(document, add_special_tokens=not ids)
        if len(ids) >= count:
            break
    return list(itertools.islice(itertools.cycle(ids), count))


def lay_context(
    generator: Generator,
    ids: Sequence[int],
    room: int,
    *,
    like_text: bool,
    progress: Progress = silent,
) -> None:
    """Fill the KV cache with a context.

    Args:
        generator: whose KV cache it is.
        ids: the context.
        room: positions to make room for behind it.
        like_text: really read it, densely; else keys and values are noise, which costs the same.
        progress: told of tokens.
    """
    model = generator.loaded.model
    if not like_text:
        fill_cache(model, len(ids), room)
        model.kv_cache.ids[:] = ids
        return
    model.kv_cache.trim(0)
    model.kv_cache.reserve(len(ids) + room)
    for start in range(0, len(ids), READ_AT_ONCE):
        progress("Reading the context", start, len(ids))
        model.read(ids[start : start + READ_AT_ONCE])


def fill_cache(model: Model, depth: int, room: int) -> None:
    """Pretend that `depth` tokens have been read; keys and values of noise cost the same.

    Args:
        model: whose KV cache it is.
        depth: positions to occupy, by token 1.
        room: positions to make room for behind them.
    """
    from sparity_edge.kernels.kv_format import write

    cache = model.kv_cache
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
    cache.stretch = model.decoder.rope.stretch(depth + 1, whole=False)
