"""Screens of LM heads on disk: a file each in the cache, found by the model and its head.

A screen serves every pack of a model whose head has the same numbers, wherever the pack stands; a
named packed folder is left as it is. What is damaged, of another version or of another head is
made again. Nothing depends on a screen but speed: the model measures its errors on every token.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import numpy as np

from converters.screen import layouts, make_screen, pays
from converters.screen_place import head_name, path_of
from sparity_edge.arrays import Bytes, aligned_empty, round_up
from sparity_edge.errors import FormatError, OptionError
from sparity_edge.kernels.screen import LARGEST
from sparity_edge.model.model import Model
from sparity_edge.model.screened_head import HeadScreen
from sparity_edge.packed.folder import PackedModel
from sparity_edge.packed.lane_rows import TOGETHER, LaneRows
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.progress import CallContext
from sparity_edge.system.atomic import one_sentence, replace_file
from sparity_edge.text.tokenizer import Tokenizer

KEY = "sparity_edge_screen"  # of the metadata: SHA-256 of some rows of the head
PROJECTION, ROWS, ERRORS = "projection", "rows", "errors"
SAMPLED = 64  # rows


def ready_screen(model: Model, tokenizer: Tokenizer, context: CallContext) -> HeadScreen | None:
    """The screen of a model's head, made and kept in the cache if that has not been done.

    Args:
        model: in memory.
        tokenizer: the model's.
        context: whom it is told.

    Returns:
        None where decoding would hardly be faster, or where nothing can be kept.
    """
    packed = model.packed
    if not pays(packed):
        return None
    path = path_of(packed)
    screen = _read(path, packed)
    if screen is not None:
        return screen
    context.notify(f"Making a screen of the LM head of {packed.path}, once: {path}")
    model.machine.expect_screen(layouts(_head(packed))[0])
    model.compile(context.progress)  # in several processes; the first pass would do it in one
    # Python without its help texts, or a cache that cannot be written: a screen made at every
    # start would cost more than it saves.
    with contextlib.suppress(OptionError, FormatError):
        folder = path.parent
        with one_sentence(path):
            folder.mkdir(parents=True, exist_ok=True)
            screen = make_screen(model, tokenizer, context.progress)
            replace_file(path, [_content(screen, packed)])
    return screen


def _content(screen: HeadScreen, packed: PackedModel) -> bytes:
    from safetensors.numpy import save

    tensors = {
        PROJECTION: screen.projection.data,
        ROWS: screen.rows.data,
        ERRORS: screen.errors,
    }
    return save(tensors, metadata={KEY: _sample(packed)})


def _read(path: Path, packed: PackedModel) -> HeadScreen | None:
    """The screen in a file, if it is one of this very head."""
    from safetensors import SafetensorError, safe_open

    projection, rows = layouts(_head(packed))
    try:
        with safe_open(str(path), framework="np") as file:
            sample = (file.metadata() or {}).get(KEY)
            found = {name: file.get_tensor(name) for name in (PROJECTION, ROWS, ERRORS)}
    except (SafetensorError, OSError, TypeError, ValueError):
        return None
    wanted = {
        PROJECTION: projection.nbytes,
        ROWS: rows.nbytes,
        ERRORS: round_up(rows.outputs, TOGETHER),
    }
    healthy = all(
        each.dtype == np.uint8 and each.shape == (wanted[name],) for name, each in found.items()
    )
    if healthy:  # no number that divides may be 0
        healthy = bool((found[ERRORS][: rows.outputs] - 1 < LARGEST).all())
    if not healthy or sample != _sample(packed):
        return None
    return HeadScreen(
        PackedMatrix(projection, _aligned(found[PROJECTION])),
        LaneRows(rows, _aligned(found[ROWS])),
        _aligned(found[ERRORS]),
    )


def _aligned(data: Bytes) -> Bytes:
    copy = aligned_empty(data.nbytes)
    copy[:] = data
    return copy


def _head(packed: PackedModel) -> Layout:
    layout = packed.layouts[head_name(packed)]
    assert isinstance(layout, Layout)
    return layout


def _sample(packed: PackedModel) -> str:
    """SHA-256, in hex, of some rows of the head."""
    head = packed.tensors[head_name(packed)]
    assert isinstance(head, PackedMatrix)
    vocab_size, row_bytes = head.layout.shape[0], head.layout.row_bytes
    rows = head.data[: vocab_size * row_bytes].reshape(vocab_size, row_bytes)
    chosen = np.linspace(0, vocab_size - 1, min(SAMPLED, vocab_size)).astype(int)
    return hashlib.sha256(rows[chosen].tobytes()).hexdigest()
