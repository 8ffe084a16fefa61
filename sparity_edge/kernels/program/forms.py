"""Forms of activations that products read: digits for one token, packed tiles for many.

A form is recorded once for all products of the same activations, until something writes there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sparity_edge.arrays import ROW_MULTIPLE, Floats, aligned_zeros, round_up
from sparity_edge.kernels.batch.products import split_each
from sparity_edge.kernels.decode import activations, kquant_dots
from sparity_edge.kernels.decode.dot_arguments import BLOCK_GROUPS
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.prefill import packing
from sparity_edge.kernels.prefill.byte_tiles import B_UNIT
from sparity_edge.kernels.program.fusions import take_before_split
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.simd.float_tiles import TOKENS
from sparity_edge.kernels.simd.int16_tiles import UNIT, X_UNIT
from sparity_edge.packed.layout import SUPERBLOCK, Layout


class Digits(NamedTuple):
    """Activations as 16-bit integers, a row for each token; 0 where numbers stay floats."""

    digits: Any
    scales: Any  # of K-quants all floats that go with the digits
    sums: Any


class Tiles(NamedTuple):
    """Activations packed for the products of many tokens."""

    packed: Any
    tile_bytes: int


def digits_of(recorder: Recorder, x: Floats, layout: Layout) -> Digits:
    """Digits, scales and sums of one row of activations, recorded unless they are at hand."""
    return _digits(recorder, x, layout, _split)


def digits_of_each(recorder: Recorder, x: Floats, layout: Layout) -> Digits:
    """Digits, scales and sums of every row of x, recorded unless they are at hand."""
    return _digits(recorder, x, layout, _split_each)


def tiles_of(recorder: Recorder, x: Floats, kernel: Kernel) -> Tiles:
    """Activations by tiles of six tokens, recorded unless they are at hand.

    Args:
        recorder: records the packing.
        x: (tokens, size).
        kernel: of `packing`.
    """
    form = (recorder.word(x), kernel.name, len(x))
    if form not in recorder.forms:
        size, tiles = round_up(x.shape[1], ROW_MULTIPLE), -(-len(x) // TOKENS)
        tile_bytes = 4 * TOKENS * size
        if kernel is not packing.pack_floats:
            unit_bytes = X_UNIT if kernel is packing.pack_words else B_UNIT
            tile_bytes = round_up(size // UNIT, packing.WORD_BLOCK) * unit_bytes
        packed = recorder.pool(
            ("tiles", kernel.name, size, len(x)), tiles * tile_bytes, zeroed=True
        )
        _forget(recorder, packed)
        recorder.barrier()  # it waits for x, and what follows waits for it
        recorder.record(
            kernel, tiles, x=x, x_stride=x.strides[0], tokens=len(x), packed=packed,
            tile_bytes=tile_bytes, size=size,
        )  # fmt: skip
        recorder.barrier()
        recorder.forms[form] = Tiles(packed, tile_bytes)
    return Tiles(*recorder.forms[form])


def _digits(recorder: Recorder, x: Floats, layout: Layout, record: Any) -> Digits:
    if not layout.quantized:
        return Digits(0, 0, 0)
    order = activations.ORDERS.get(layout.dtype, activations.IN_A_ROW)
    form = (recorder.word(x), order, layout.padded)
    if form not in recorder.forms:
        places = _new_digits(recorder, layout, order, len(x))
        recorder.barrier()  # it waits for x, and what follows waits for it
        record(recorder, {"x": x, "size": layout.padded, "order": order, **places._asdict()})
        recorder.barrier()
        recorder.forms[form] = places
    return Digits(*recorder.forms[form])


def _split(recorder: Recorder, words: dict[str, Any]) -> None:
    kernel, chunks, before = take_before_split(
        recorder.records, recorder.word(words["x"]), words["size"]
    )
    recorder.record(kernel, chunks, **words, **before)


def _split_each(recorder: Recorder, words: dict[str, Any]) -> None:
    tokens, chunks = len(words["x"]), -(-words["size"] // activations.BLOCK)
    table = recorder.table(split_each, tokens, words)
    recorder.record(split_each, tokens * chunks, **table, chunks_of_one=chunks)


def _new_digits(recorder: Recorder, layout: Layout, order: int, tokens: int) -> Digits:
    """Memory for digits, scales and sums, a row for each token.

    Of several tokens all activations of this shape take turns in it: a layer's of eight tokens, 240
    KB, stay in L2.
    """
    groups = layout.padded // 32
    unit = BLOCK_GROUPS if order == activations.BY_BLOCKS else 2
    floats = round_up(groups, 16)
    if order == activations.FOR_KQUANTS:
        floats = kquant_dots.X_FLOATS // 4 * -(-layout.padded // (2 * SUPERBLOCK))
    sizes = [64 * round_up(groups, unit)]
    sizes += [4 * round_up(each, ROW_MULTIPLE) for each in (floats, groups)]

    def memory(index: int) -> Any:
        nbytes = tokens * sizes[index]
        if tokens == 1:
            return aligned_zeros(nbytes)
        return recorder.pool(("digits", order, layout.padded, tokens, index), nbytes, zeroed=True)

    digits, scales, sums = (memory(index).reshape(tokens, -1) for index in range(3))
    if tokens > 1:
        _forget(recorder, digits)
    return Digits(digits, scales.view(np.float32), sums.view(np.float32))


def _forget(recorder: Recorder, memory: Any) -> None:
    """What a piece of memory that others take over held before is gone."""
    recorder.forms = {
        form: place
        for form, place in recorder.forms.items()
        if not np.may_share_memory(place[0], memory)
    }
