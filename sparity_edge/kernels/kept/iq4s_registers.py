"""Numbers of iq4 and iq4k in registers: four bits are a place in a table of sixteen.

    line i, i = 0 ... 3    low nibbles: vector i    high nibbles: vector i + 4

Vector v holds inputs 4 v ... 4 v + 3 of group 0 of a block, then of group 1 and so on, as in
`block_dots`; a line has four bytes for each group, 64 or fewer in the last block of a row. One
instruction looks up as many bytes as a register has (`vpshufb`, `tbl`); where the CPU has none
(plain x86-64), sixteen comparisons do.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sparity_edge.kernels.batch.register_tiles import write_weights
from sparity_edge.kernels.simd.block_dots import block, load_lines
from sparity_edge.kernels.simd.cpu import features
from sparity_edge.kernels.simd.int16_tiles import W_SCALES, W_UNIT
from sparity_edge.kernels.simd.ir import (
    BYTES,
    F32,
    FLOATS,
    I8,
    I16,
    I32,
    I64,
    INTEGERS,
    SHORTS,
    concatenate,
    constant,
    define,
    halves_to_floats,
    join,
    load_from,
    mask_bits,
    shift_right,
    shuffle,
    store_to,
)
from sparity_edge.kernels.simd.kquants import store_pairs
from sparity_edge.kernels.simd.memory import L1, NON_TEMPORAL
from sparity_edge.kernels.simd.transposes import ROWS, columns_of, load_rows, row_address
from sparity_edge.kernels.simd.vectors import vector
from sparity_edge.packed.layout import IQ4_VALUES

LINES = 4
OFFSET = 128  # is added to make numbers unsigned
_FOUR, _HALF = ir.VectorType(I8, 4), ir.VectorType(I8, 32)
# By CPU feature, the best first: the intrinsic, and its bytes.
_LOOKUPS = {
    "avx512bw": ("llvm.x86.avx512.pshuf.b.512", 64),
    "avx2": ("llvm.x86.avx2.pshuf.b", 32),
    "ssse3": ("llvm.x86.ssse3.pshuf.b.128", 16),
    "neon": ("llvm.aarch64.neon.tbl1.v16i8", 16),
}
_TABLE = [value + OFFSET - 256 * (value >= 0) for value in IQ4_VALUES]  # as signed bytes


def _look_up(builder: Any, places: Any) -> Any:
    """The number of every place 0..15 of a vector of bytes, plus OFFSET."""
    known = next((_LOOKUPS[name] for name in _LOOKUPS if name in features()), None)
    if known is None:
        return _by_comparison(builder, places)
    name, width = known
    count = places.type.count
    if count < width:
        filled = shuffle(builder, places, places, [lane % count for lane in range(width)])
        found = _look_up(builder, filled)
        return shuffle(builder, found, found, range(count))
    kind = ir.VectorType(I8, width)
    signature = ir.FunctionType(kind, [kind, kind])
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    table = ir.Constant(kind, _TABLE * (width // 16))
    parts = []
    for start in range(0, count, width):
        mine = shuffle(builder, places, places, range(start, start + width))
        parts.append(builder.call(function, [table, mine]))
    return concatenate(builder, parts)


def _by_comparison(builder: Any, places: Any) -> Any:
    result = constant(places.type, _TABLE[0])
    for place, value in enumerate(_TABLE[1:], 1):
        same = builder.icmp_unsigned("==", places, constant(places.type, place))
        result = builder.select(same, constant(places.type, value), result)
    return result


def _low(builder: Any, line: Any) -> Any:
    return _look_up(builder, mask_bits(builder, line, 15))


def _high(builder: Any, line: Any) -> Any:
    return _look_up(builder, shift_right(builder, line, 4))


def _vectors(builder: Any, lines: list[Any]) -> list[Any]:
    """Eight vectors of four lines, plus OFFSET."""
    return [part(builder, line) for part in (_low, _high) for line in lines]


# --- products ---------------------------------------------------------------------------------


def _loading(level: int) -> Any:
    @define(block, types.int64, types.int64)
    def load_iq4(builder: Any, numbers: Any, ahead: Any) -> Any:
        """A block of sixteen groups, plus OFFSET; prefetches 256 bytes from `ahead` on."""
        return join(builder, _vectors(builder, load_lines(builder, numbers, ahead, LINES, level)))

    return load_iq4


# What is prefetched is used once, or it goes into L2 when L1 has no room for it until then.
load_iq4, load_iq4_near = _loading(NON_TEMPORAL), _loading(L1)


@define(block, types.int64, types.int64)
def load_last_iq4(builder: Any, numbers: Any, width: Any) -> Any:
    """The block at the end of a row, whose lines have `width` bytes; other lanes hold whatever."""
    places = [builder.add(numbers, builder.mul(width, I64(line))) for line in range(LINES)]
    return join(builder, _vectors(builder, [load_from(builder, each, BYTES) for each in places]))


@define(types.none, types.int64, types.int64, types.int64)
def store_iq4(builder: Any, numbers: Any, width: Any, to: Any) -> Any:
    """Look up a block, whose lines have `width` bytes, to where tiles read its vectors."""
    places = [builder.add(numbers, builder.mul(width, I64(line))) for line in range(LINES)]
    vectors = _vectors(builder, [load_from(builder, each, BYTES) for each in places])
    for index, each in enumerate(vectors):
        write_weights(builder, each, to, index)


# --- scales -----------------------------------------------------------------------------------


def _sixes(builder: Any, address: Any, groups: int, lanes: int) -> Any:
    """Scales -32..31 of six bits of 8 or 16 groups, repeated, as so many float32."""
    words = groups * 6 // 16
    starts = [lane % groups * 6 for lane in range(lanes)]
    pairs = [min(start // 16 + odd, words - 1) for start in starts for odd in (0, 1)]
    packed = load_from(builder, address, ir.VectorType(I16, words))
    kind = ir.VectorType(I32, lanes)
    spread = builder.bitcast(shuffle(builder, packed, packed, pairs), kind)
    moved = builder.lshr(spread, ir.Constant(kind, [start % 16 for start in starts]))
    signed = builder.sub(mask_bits(builder, moved, 63), constant(kind, 32))
    return builder.sitofp(signed, ir.VectorType(F32, lanes))


def _factors(builder: Any, address: Any, count: int, lanes: list[int]) -> Any:
    values = halves_to_floats(builder, load_from(builder, address, ir.VectorType(I16, count)))
    return shuffle(builder, values, values, lanes)


@define(vector, types.int64)
def iq4k_scales(builder: Any, scales: Any) -> Any:
    """Of the sixteen groups of a block of iq4k, one to a lane, from its scale bytes."""
    factors = _factors(builder, builder.add(scales, I64(12)), 2, [0] * 8 + [1] * 8)
    return builder.fmul(factors, _sixes(builder, scales, 16, 16))


@define(vector, types.int64)
def last_iq4k_scales(builder: Any, scales: Any) -> Any:
    """Of the eight groups at the end of a row; other lanes hold finite numbers."""
    factor = _factors(builder, builder.add(scales, I64(6)), 1, [0] * 16)
    return builder.fmul(factor, _sixes(builder, scales, 8, 16))


# --- floats -----------------------------------------------------------------------------------


def _sixteen(part: Any) -> Any:
    @define(vector, types.int64, types.int64)
    def load_sixteen(builder: Any, address: Any, width: Any) -> Any:
        """Four numbers each of four vectors that follow each other, as float32."""
        places = [builder.add(address, builder.mul(width, I64(line))) for line in range(LINES)]
        lines = concatenate(builder, [load_from(builder, each, _FOUR) for each in places])
        numbers = builder.zext(part(builder, lines), INTEGERS)
        return builder.sitofp(builder.sub(numbers, constant(INTEGERS, OFFSET)), FLOATS)

    return load_sixteen


# Of the group whose fours stand at an address, lines `width` bytes apart: half of its inputs.
load_first_half, load_second_half = _sixteen(_low), _sixteen(_high)


# --- panels for prefill: as drawn in `transposes` ---------------------------------------------


def _transposing(part: Any) -> Any:
    @define(types.none, types.int64, *ROWS)
    def transpose(builder: Any, out: Any, *rows: Any) -> Any:
        """A vector of eight groups of sixteen rows: pairs by columns."""
        numbers = [part(builder, each) for each in load_rows(builder, rows, _HALF)]
        store_pairs(builder, out, numbers, constant(SHORTS, OFFSET))

    return transpose


transpose_low, transpose_high = _transposing(_low), _transposing(_high)


@define(types.none, types.int64, types.int64, types.int64, types.int64, types.int64)
def transpose_iq4k_scales(
    builder: Any, out: Any, scales: Any, factors: Any, stride: Any, last: Any
) -> Any:
    """Scales of eight groups of iq4k of sixteen rows, to W_SCALES."""
    rows = []
    for i in range(16):
        sixes = _sixes(builder, row_address(builder, scales, stride, i, last), 8, 8)
        factor = _factors(builder, row_address(builder, factors, stride, i, last), 1, [0] * 8)
        rows.append(builder.bitcast(builder.fmul(factor, sixes), ir.VectorType(I32, 8)))
    for group, each in enumerate(columns_of(builder, rows)):
        store_to(builder, each, out, group * W_UNIT + W_SCALES)
