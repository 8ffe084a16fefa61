"""Blocks of GGUF's quantised types to the numbers and scales that a packed folder keeps.

NATIVE says which types keep their values, and in what form; UNPACK takes the bytes of some rows of
such a type apart. The blocks are llama.cpp's (ggml-common.h). Knows nothing of files, names of
tensors or layouts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from converters.numbers.quantize import Quantized

Array = npt.NDArray[Any]

# (dtype, group, minimum) of a layout.
NATIVE = {
    GGMLQuantizationType.Q8_0: ("int8", 32, False),
    GGMLQuantizationType.Q4_0: ("int4", 32, False),
    GGMLQuantizationType.Q4_1: ("int4", 32, True),
    GGMLQuantizationType.Q5_0: ("int5", 32, False),
    GGMLQuantizationType.Q5_1: ("int5", 32, True),
    GGMLQuantizationType.IQ4_NL: ("iq4", 32, False),
    GGMLQuantizationType.IQ4_XS: ("iq4k", 32, False),
    GGMLQuantizationType.Q2_K: ("int2k", 16, True),
    GGMLQuantizationType.Q3_K: ("int3k", 16, False),
    GGMLQuantizationType.Q4_K: ("int4k", 32, True),
    GGMLQuantizationType.Q5_K: ("int5k", 32, True),
    GGMLQuantizationType.Q6_K: ("int6k", 16, False),
}


def _float16(blocks: Array, position: int) -> Array:
    """Float16 number at byte `position` of each block; blocks are (rows, groups, bytes)."""
    return np.ascontiguousarray(blocks[..., position : position + 2]).view("<f2")[..., 0]


def _nibbles(packed: Array) -> Array:
    """(..., n bytes) -> (..., 2n): the low nibbles, then the high ones."""
    return np.concatenate([packed & 0x0F, packed >> 4], axis=-1)


def _q8_0(rows: Array) -> Quantized:
    blocks = rows.reshape(len(rows), -1, 34)
    numbers = np.ascontiguousarray(blocks[..., 2:]).view(np.int8).reshape(len(rows), -1)
    return Quantized("int8", 32, numbers, _float16(blocks, 0), None)


def _q4_0(rows: Array) -> Quantized:
    blocks = rows.reshape(len(rows), -1, 18)
    numbers = _nibbles(blocks[..., 2:]).reshape(len(rows), -1)
    return Quantized("int4", 32, numbers, _float16(blocks, 0), None)


def _q4_1(rows: Array) -> Quantized:
    blocks = rows.reshape(len(rows), -1, 20)
    numbers = _nibbles(blocks[..., 4:]).reshape(len(rows), -1)
    return Quantized("int4", 32, numbers, _float16(blocks, 0), _float16(blocks, 2))


def _fives(blocks: Array, start: int) -> Array:
    """Numbers of blocks (rows, groups, bytes): 32 fifth bits from `start` on, then the nibbles."""
    count = len(blocks)
    bits = np.unpackbits(blocks[..., start : start + 4], axis=-1, bitorder="little")
    numbers: Array = _nibbles(blocks[..., start + 4 :]) | bits << np.uint8(4)
    return numbers.reshape(count, -1)


def _q5_0(rows: Array) -> Quantized:
    blocks = rows.reshape(len(rows), -1, 22)
    return Quantized("int5", 32, _fives(blocks, 2), _float16(blocks, 0), None)


def _q5_1(rows: Array) -> Quantized:
    blocks = rows.reshape(len(rows), -1, 24)
    return Quantized("int5", 32, _fives(blocks, 4), _float16(blocks, 0), _float16(blocks, 2))


def _of_superblocks(blocks: Array) -> tuple[Array, Array, Array]:
    """Of blocks (rows, superblocks, bytes) scales, minima and factors: d, dmin, then 12 bytes.

    The twelve bytes hold eight scales and eight minima of six bits each.
    """
    count = len(blocks)
    low, mid, high = (blocks[..., start : start + 4] for start in (4, 8, 12))
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=-1)
    minimums = np.concatenate([mid & 63, (high >> 4) | (mid >> 6 << 4)], axis=-1)
    factors = np.stack([_float16(blocks, 0), _float16(blocks, 2)], axis=-1)
    return scales.reshape(count, -1), minimums.reshape(count, -1), factors


def _q4_k(rows: Array) -> Quantized:
    """Blocks of 256: scales, 8 x 32 nibbles."""
    blocks = rows.reshape(len(rows), -1, 144)
    # 32 bytes hold two groups: the first in the low nibbles, the second in the high ones.
    numbers = _nibbles(blocks[..., 16:].reshape(len(rows), -1, 32))
    return Quantized("int4k", 32, numbers.reshape(len(rows), -1), *_of_superblocks(blocks))


def _q5_k(rows: Array) -> Quantized:
    """Blocks of 256: scales, 32 bytes of fifth bits, 8 x 32 nibbles."""
    blocks = rows.reshape(len(rows), -1, 176)
    numbers = _nibbles(blocks[..., 48:].reshape(*blocks.shape[:2], 4, 32))
    # Bit g of byte i belongs to number i of group g.
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    fifth = blocks[..., None, 16:48] >> shifts & np.uint8(1)
    numbers = numbers.reshape(fifth.shape) | fifth << np.uint8(4)
    return Quantized("int5k", 32, numbers.reshape(len(rows), -1), *_of_superblocks(blocks))


def _twos(packed: Array) -> Array:
    """(..., 2, 32 bytes) -> (..., 256): of each half bits 0-1, then 2-3, 4-5 and 6-7."""
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    numbers: Array = packed[..., None, :] >> shifts & np.uint8(3)
    return numbers.reshape(*packed.shape[:-2], 256)


def _q2_k(rows: Array) -> Quantized:
    """Blocks of 256: 16 scales and minima, four bits each, 256 x 2 bits, d, dmin."""
    blocks = rows.reshape(len(rows), -1, 84)
    numbers = _twos(blocks[..., 16:80].reshape(*blocks.shape[:2], 2, 32))
    scales, minimums = blocks[..., :16] & np.uint8(15), blocks[..., :16] >> np.uint8(4)
    numbers, scales, minimums = (
        each.reshape(len(rows), -1) for each in (numbers, scales, minimums)
    )
    factors = np.stack([_float16(blocks, 80), _float16(blocks, 82)], axis=-1)
    return Quantized("int2k", 16, numbers, scales, minimums, factors)


def _q3_k(rows: Array) -> Quantized:
    """Blocks of 256: 32 bytes of third bits, 256 x 2 bits, 16 scales of six bits, d."""
    blocks = rows.reshape(len(rows), -1, 110)
    low = _twos(blocks[..., 32:96].reshape(*blocks.shape[:2], 2, 32))
    # Bit g of byte i belongs to number i of 32s group g.
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    third = blocks[..., None, :32] >> shifts & np.uint8(1)
    numbers = (low | third.reshape(low.shape) << np.uint8(2)).view(np.int8) - np.int8(4)
    # Eight bytes hold the low four bits of scales 0-7 and 8-15, four more the two bits above them.
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = (blocks[..., None, 104:108] >> shifts & np.uint8(3)).reshape(*blocks.shape[:2], 16)
    scales = (_nibbles(blocks[..., 96:104]) | high << np.uint8(4)).view(np.int8) - np.int8(32)
    numbers, scales = (each.reshape(len(rows), -1) for each in (numbers, scales))
    return Quantized("int3k", 16, numbers, scales, None, _float16(blocks, 108)[..., None])


def _iq4_nl(rows: Array) -> Quantized:
    """Blocks as of Q4_0, whose four bits are places in a table."""
    return replace(_q4_0(rows), dtype="iq4")


def _iq4_xs(rows: Array) -> Quantized:
    """Blocks of 256: d, two high bits of eight scales, their four low bits, 8 x 32 nibbles."""
    blocks = rows.reshape(len(rows), -1, 136)
    high = np.ascontiguousarray(blocks[..., 2:4]).view("<u2") >> np.arange(0, 16, 2) & 3
    low = np.stack([blocks[..., 4:8] & 15, blocks[..., 4:8] >> np.uint8(4)], axis=-1)
    scales = (low.reshape(*blocks.shape[:2], 8) | high << 4).astype(np.int8) - np.int8(32)
    numbers = _nibbles(blocks[..., 8:].reshape(*blocks.shape[:2], 8, 16))
    numbers, scales = (each.reshape(len(rows), -1) for each in (numbers, scales))
    return Quantized("iq4k", 32, numbers, scales, None, _float16(blocks, 0)[..., None])


def _q6_k(rows: Array) -> Quantized:
    """Blocks of 256: two halves of 64 bytes of low bits, of 32 of high bits, 16 scales, d."""
    blocks = rows.reshape(len(rows), -1, 210)
    low = _nibbles(blocks[..., :128].reshape(*blocks.shape[:2], 2, 64))
    shifts = np.array([[0], [2], [4], [6]], dtype=np.uint8)
    high = blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 1, 32) >> shifts & 3
    numbers = (low | high.reshape(low.shape) << 4).view(np.int8) - np.int8(32)
    scales = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8)
    numbers, scales = (each.reshape(len(rows), -1) for each in (numbers, scales))
    return Quantized("int6k", 16, numbers, scales, None, _float16(blocks, 208)[..., None])


# (rows, bytes) -> the numbers of these rows.
UNPACK = {
    GGMLQuantizationType.Q8_0: _q8_0,
    GGMLQuantizationType.Q4_0: _q4_0,
    GGMLQuantizationType.Q4_1: _q4_1,
    GGMLQuantizationType.Q5_0: _q5_0,
    GGMLQuantizationType.Q5_1: _q5_1,
    GGMLQuantizationType.IQ4_NL: _iq4_nl,
    GGMLQuantizationType.IQ4_XS: _iq4_xs,
    GGMLQuantizationType.Q2_K: _q2_k,
    GGMLQuantizationType.Q3_K: _q3_k,
    GGMLQuantizationType.Q4_K: _q4_k,
    GGMLQuantizationType.Q5_K: _q5_k,
    GGMLQuantizationType.Q6_K: _q6_k,
}
