"""Sums of products of integers, four bytes or two shorts to a lane, by what the CPU has for them.

    bytes     b0 b1 b2 b3 | b4 b5 b6 b7 | ...      lane i of the sums gets bytes 4 i ... 4 i + 3
    shorts    s0    s1    | s2    s3    | ...      or shorts 2 i and 2 i + 1

An activation is a 16-bit integer, and sixteen of them are two vectors of bytes, `halves_of`. Where
one instruction multiplies bytes (`vpdpbusd`, `usdot`), those are high and low digits, high * 256 +
low, both signed. Elsewhere they are the numbers at even and at odd places, for shorts of weights
(`vpmaddwd`): 6 instructions for 32 weights of 8 bits with AVX2, where digits would take 16. Either
way four bytes of a half belong to four neighbouring numbers, and
`dot_second(carry(dot_first(0, w, first)), w, second)` is the same integer on every CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from sparity_edge.kernels.simd.cpu import byte_dot, word_dot
from sparity_edge.kernels.simd.ir import (
    I8,
    I16,
    I32,
    INTEGERS,
    LANES,
    SHORTS,
    concatenate,
    constant,
    mask_bits,
    shift_right,
    shuffle,
)

# By CPU feature: the intrinsic, its lanes, and the type of the integers it multiplies.
_BYTE_DOTS = {
    "avx512vnni": ("llvm.x86.avx512.vpdpbusd.512", 16, I32),
    "avxvnni": ("llvm.x86.avx512.vpdpbusd.256", 8, I32),
    "i8mm": ("llvm.aarch64.neon.usdot.v4i32.v16i8", 4, I8),
}
_WORD_DOTS = {
    "avx512vnni": ("llvm.x86.avx512.vpdpwssd.512", 16, I32),
    "avxvnni": ("llvm.x86.avx512.vpdpwssd.256", 8, I32),
    "avx512bw": ("llvm.x86.avx512.pmaddw.d.512", 16, I16),
    "avx2": ("llvm.x86.avx2.pmadd.wd", 8, I16),
}
_WITHOUT_SUMS = ("avx512bw", "avx2")  # multiply only


def _call(builder: Any, name: str, lanes: int, element: ir.Type, *values: Any) -> Any:
    """An intrinsic of so many lanes for all there are; it multiplies the last two values."""
    result = ir.VectorType(I32, lanes)
    factor = ir.VectorType(element, lanes * 32 // element.width)
    kinds = [*[result] * (len(values) - 2), factor, factor]
    signature = ir.FunctionType(result, kinds)
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    parts = []
    for start in range(0, values[0].type.count, lanes):
        mine = [shuffle(builder, each, each, range(start, start + lanes)) for each in values]
        casts = [builder.bitcast(each, kind) for each, kind in zip(mine, kinds)]
        parts.append(builder.call(function, casts))
    return concatenate(builder, parts)


def _as_integers(builder: Any, values: Any) -> Any:
    count = values.type.count * values.type.element.width // 32
    return builder.bitcast(values, ir.VectorType(I32, count))


def dot_words(builder: Any, sums: Any, left: Any, right: Any) -> Any:
    """sums[i] plus the products of shorts 2 i and 2 i + 1, which are signed and not all -32768."""
    left, right = _as_integers(builder, left), _as_integers(builder, right)
    feature = word_dot()
    if feature in _WITHOUT_SUMS:
        return builder.add(sums, _call(builder, *_WORD_DOTS[feature], left, right))
    if feature:
        return _call(builder, *_WORD_DOTS[feature], sums, left, right)
    # A pattern that LLVM knows: one instruction even with SSE2.
    count = 2 * left.type.count
    wide, shorts = ir.VectorType(I32, count), ir.VectorType(I16, count)
    factors = [builder.sext(builder.bitcast(each, shorts), wide) for each in (left, right)]
    products = builder.mul(*factors)
    even, odd = (shuffle(builder, products, products, range(i, count, 2)) for i in (0, 1))
    return builder.add(sums, builder.add(even, odd))


def _dot(builder: Any, sums: Any, weights: Any, half: Any, words: Callable[[Any], Any]) -> Any:
    weights, half = _as_integers(builder, weights), _as_integers(builder, half)
    if feature := byte_dot():
        return _call(builder, *_BYTE_DOTS[feature], sums, weights, half)
    shorts = ir.VectorType(I16, 2 * weights.type.count)
    return dot_words(builder, sums, words(builder.bitcast(weights, shorts)), half)


def dot_first(builder: Any, sums: Any, weights: Any, first: Any) -> Any:
    """sums[i] plus unsigned bytes 4 i to 4 i + 3 times the first half of their activations."""
    return _dot(builder, sums, weights, first, lambda shorts: mask_bits(builder, shorts, 255))


def dot_second(builder: Any, sums: Any, weights: Any, second: Any) -> Any:
    """sums[i] plus unsigned bytes 4 i to 4 i + 3 times the second half of their activations."""
    return _dot(builder, sums, weights, second, lambda shorts: shift_right(builder, shorts, 8))


def dot_bytes(builder: Any, sums: Any, weights: Any, activations: Any) -> Any:
    """sums[i] plus bytes 4 i to 4 i + 3 of weights, of 0 to 127, times signed bytes."""
    weights, activations = _as_integers(builder, weights), _as_integers(builder, activations)
    if feature := byte_dot():
        return _call(builder, *_BYTE_DOTS[feature], sums, weights, activations)
    if word_dot() == "avx2":
        pairs = _pairs(builder, weights, activations)
        return dot_words(builder, sums, pairs, constant(SHORTS, 1))
    left, right = (builder.bitcast(each, SHORTS) for each in (weights, activations))
    eight = constant(SHORTS, 8)
    even = builder.ashr(builder.shl(right, eight), eight)
    sums = dot_words(builder, sums, mask_bits(builder, left, 255), even)
    return dot_words(builder, sums, shift_right(builder, left, 8), builder.ashr(right, eight))


def _pairs(builder: Any, weights: Any, activations: Any) -> Any:
    """Products of bytes 2 i and 2 i + 1, added as shorts, which AVX2 saturates."""
    kind, result = ir.VectorType(I8, 32), ir.VectorType(I16, 16)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [kind, kind]), "llvm.x86.avx2.pmadd.ub.sw"
    )
    parts = []
    for start in (0, 8):
        mine = [
            builder.bitcast(shuffle(builder, each, each, range(start, start + 8)), kind)
            for each in (weights, activations)
        ]
        parts.append(builder.call(function, mine))
    return concatenate(builder, parts)


def carry(builder: Any, sums: Any) -> Any:
    """What sums of first halves count for in sums of second ones."""
    return builder.shl(sums, constant(INTEGERS, 8)) if byte_dot() else sums


# --- as many lanes as one instruction has -----------------------------------------------------

_LANES_OF_ANY = 4  # of the pattern that LLVM knows


def dot_lanes() -> int:
    """How many sums one instruction makes."""
    if feature := byte_dot():
        return _BYTE_DOTS[feature][1]
    return _WORD_DOTS[word_dot()][1] if word_dot() else _LANES_OF_ANY


def dot_part(builder: Any, sums: Any, weights: Any, half: Any) -> Any:
    """`dot_lanes` sums, plus weights times a half of their activations.

    Args:
        builder: LLVM's.
        sums: int32.
        weights: unsigned bytes, or shorts of them where there is no product of bytes.
        half: the first or the second half of activations.
    """
    if feature := byte_dot():
        return _call(builder, *_BYTE_DOTS[feature], sums, weights, half)
    return dot_words(builder, sums, weights, half)


def carry_part(builder: Any, sums: Any) -> Any:
    """`carry` of `dot_lanes` sums."""
    return builder.shl(sums, constant(sums.type, 8)) if byte_dot() else sums


def halves_of(builder: Any, integers: Any) -> tuple[Any, Any]:
    """Sixteen int32 of at most 127 * 256 as two vectors of 16 bytes."""
    small = ir.VectorType(I8, LANES)
    if not byte_dot():
        shorts = builder.trunc(integers, ir.VectorType(I16, LANES))
        even, odd = (shuffle(builder, shorts, shorts, range(i, LANES, 2)) for i in (0, 1))
        return builder.bitcast(even, small), builder.bitcast(odd, small)
    # The low digit is signed, which takes one from the high digit where it is negative.
    places = constant(INTEGERS, 24)
    low = builder.ashr(builder.shl(integers, places), places)
    high = builder.ashr(builder.sub(integers, low), constant(INTEGERS, 8))
    return builder.trunc(high, small), builder.trunc(low, small)
