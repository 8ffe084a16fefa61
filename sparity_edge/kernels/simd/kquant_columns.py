"""Columns of input-major K-quants (int4k, int6k): sixteen at a time, for panels and as float32.

    a line of a row      byte 16 q + 4 k + i is column 16 k + 4 q + i         q, k, i = 0 ... 3
    int4k, 128 columns   bits 3-0 are columns 0-63, bits 7-4 columns 64-127
    int6k, 256 columns   three lines: bits 5-0 are columns 0-191; of columns 192-255 the first line
                         has bits 1-0 in its bits 7-6, the second bits 3-2, the third bits 5-4
    scales of int4k      128 bytes: s in bits 5-0, bits 1-0 of m in bits 7-6; 64 bytes: bits 5-2 of
                         m of columns 0-63 in bits 3-0, of columns 64-127 in bits 7-4

In that order the sums of four rows come in the order of columns (`sparse/kquant_sums.py`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.ir import (
    FLOATS,
    I8,
    I16,
    I32,
    INTEGERS,
    LANES,
    concatenate,
    constant,
    define,
    halves_to_floats,
    load_from,
    mask_bits,
    offset,
    shift_right,
    splat,
    store_to,
)
from sparity_edge.kernels.simd.kquants import top_bits
from sparity_edge.kernels.simd.transposes import interleave
from sparity_edge.kernels.simd.vectors import vector

_SIXTEEN_BYTES, _SIXTEEN_SHORTS = ir.VectorType(I8, LANES), ir.VectorType(I16, LANES)


# --- scales -----------------------------------------------------------------------------------


def bytes_to_floats(builder: Any, numbers: Any, signed: bool = False) -> Any:
    """IR of sixteen bytes as float32."""
    wide = builder.sext if signed else builder.zext
    return builder.sitofp(wide(numbers, INTEGERS), FLOATS)


def factors_from(builder: Any, address: Any, index: int) -> Any:
    """IR of sixteen float16, the vector of so many before it, as float32."""
    return halves_to_floats(builder, load_from(builder, address, _SIXTEEN_SHORTS, 32 * index))


def signed_bytes_from(builder: Any, address: Any, index: int) -> Any:
    """IR of sixteen signed bytes, the vector of so many before it, as float32."""
    numbers = load_from(builder, address, _SIXTEEN_BYTES, 16 * index)
    return bytes_to_floats(builder, numbers, signed=True)


@define(vector, types.int64, types.int64)
def load_scale_bytes(builder: Any, address: Any, factors: Any) -> Any:
    """Sixteen scales of int6k, signed bytes, times their factors."""
    own = factors_from(builder, factors, 0)
    return builder.fmul(signed_bytes_from(builder, address, 0), own)


@define(vector, types.int64, types.int64)
def load_low_sixes(builder: Any, address: Any, factors: Any) -> Any:
    """Sixteen scales of int4k times their factors."""
    numbers = mask_bits(builder, load_from(builder, address, _SIXTEEN_BYTES), 63)
    return builder.fmul(bytes_to_floats(builder, numbers), factors_from(builder, factors, 0))


@define(vector, types.int64, types.int64, types.int64, types.int64)
def load_least(builder: Any, low: Any, high: Any, shift: Any, factors: Any) -> Any:
    """Sixteen minima of int4k times their factors; their tops from bit `shift` of `high` on."""
    tops = builder.zext(load_from(builder, high, _SIXTEEN_BYTES), INTEGERS)
    tops = builder.lshr(tops, splat(builder, builder.trunc(shift, I32)))
    tops = builder.shl(mask_bits(builder, tops, 15), constant(INTEGERS, 2))
    lows = shift_right(builder, load_from(builder, low, _SIXTEEN_BYTES), 6)
    least = builder.or_(tops, builder.zext(lows, INTEGERS))
    return builder.fmul(builder.sitofp(least, FLOATS), factors_from(builder, factors, 0))


# --- numbers ----------------------------------------------------------------------------------


def _sixteen(builder: Any, address: Any) -> Any:
    """Sixteen neighbouring columns of a line, of which the first four stand at an address."""
    kind = ir.VectorType(I8, 4)
    return concatenate(builder, [load_from(builder, address, kind, 16 * q) for q in range(4)])


def _nibbles(builder: Any, address: Any, shift: Any) -> Any:
    """Sixteen numbers of int4k, from bit `shift` of their bytes on."""
    wide = builder.zext(_sixteen(builder, address), INTEGERS)
    moved = builder.lshr(wide, splat(builder, builder.trunc(shift, I32)))
    return mask_bits(builder, moved, 15)


def _six_bits(builder: Any, address: Any) -> Any:
    wide = builder.zext(mask_bits(builder, _sixteen(builder, address), 63), INTEGERS)
    return builder.sub(wide, constant(INTEGERS, 32))


def _top_six_bits(builder: Any, address: Any) -> Any:
    lines = [_sixteen(builder, offset(builder, address, 64 * i)) for i in range(3)]
    wide = builder.zext(top_bits(builder, *lines), INTEGERS)
    return builder.sub(wide, constant(INTEGERS, 32))


@define(vector, types.int64, types.int64)
def sixteen_nibbles(builder: Any, address: Any, shift: Any) -> Any:
    """Sixteen columns of a row of int4k as float32, from bit `shift` of the bytes on."""
    return builder.sitofp(_nibbles(builder, address, shift), FLOATS)


@define(vector, types.int64)
def sixteen_sixes(builder: Any, address: Any) -> Any:
    """Sixteen of the columns 0-191 of a row of int6k, less 32, as float32."""
    return builder.sitofp(_six_bits(builder, address), FLOATS)


@define(vector, types.int64)
def sixteen_top_sixes(builder: Any, address: Any) -> Any:
    """Sixteen of the columns 192-255 of a row of int6k, less 32, as float32."""
    return builder.sitofp(_top_six_bits(builder, address), FLOATS)


@define(types.none, types.int64, types.int64, types.int64, types.int64)
def interleave_kquant_nibbles(builder: Any, out: Any, even: Any, odd: Any, shift: Any) -> Any:
    """Sixteen columns of two rows of int4k as pairs."""
    pair = [_nibbles(builder, row, shift) for row in (even, odd)]
    store_to(builder, interleave(builder, *pair), out)


@define(types.none, types.int64, types.int64, types.int64)
def interleave_sixes(builder: Any, out: Any, even: Any, odd: Any) -> Any:
    """Sixteen of the columns 0-191 of two rows of int6k, less 32, as pairs."""
    pair = [_six_bits(builder, row) for row in (even, odd)]
    store_to(builder, interleave(builder, *pair), out)


@define(types.none, types.int64, types.int64, types.int64)
def interleave_top_sixes(builder: Any, out: Any, even: Any, odd: Any) -> Any:
    """Sixteen of the columns 192-255 of two rows of int6k, less 32, as pairs."""
    pair = [_top_six_bits(builder, row) for row in (even, odd)]
    store_to(builder, interleave(builder, *pair), out)
