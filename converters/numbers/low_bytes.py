"""Numbers of two, three and (iq4, iq4k) four bits to bytes and back, for rows of the low K-quants.

Vectors of 64 numbers, four inputs of every group of a block (`kquant_bytes`), share bytes:

    int2k   four vectors to 64 bytes, the first lowest
    int3k   vectors 0, 2, 4 in bits 0-2 of three times 64 bytes, vectors 1, 3, 5 in bits 3-5; bits
            6-7 of the first and the second are the upper bits of vectors 6 and 7, whose lowest
            bits are bits 6 and 7 of the third. In half a block 64 bytes have vectors 0, 1 and the
            upper bits of 2, and nibbles of 32 more vector 3 and the lowest bit of 2

docs/format.md draws them. Scales are here, too, where they have six bits or share a byte with their
minimum. Moves values only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from converters.numbers.five_bytes import blocks_of

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
_ONE, _TWO, _THREE, _FOUR, _SIX, _SEVEN = (np.uint8(bits) for bits in (1, 2, 3, 4, 6, 7))


def join_twos(vectors: Bytes) -> Bytes:
    """(..., 4 n, 64) of 0..3 to (..., n, 64)."""
    fours = vectors.reshape(*vectors.shape[:-2], -1, 4, 64)
    shifts = np.array([[0], [2], [4], [6]], dtype=np.uint8)
    joined: Bytes = np.bitwise_or.reduce(fours << shifts, axis=-2)
    return joined


def split_twos(packed: Bytes) -> Bytes:
    """The inverse of `join_twos`."""
    shifts = np.array([[0], [2], [4], [6]], dtype=np.uint8)
    fours = packed[..., None, :] >> shifts & _THREE
    return fours.reshape(*packed.shape[:-2], -1, 64)


def join_threes(vectors: Bytes) -> Bytes:
    """(..., 8, 64) of 0..7 to (..., 192), or the four vectors of half a block to (..., 96)."""
    v = np.moveaxis(vectors, -2, 0)
    if len(v) == 4:
        first = v[0] | v[1] << _THREE | v[2] >> _ONE << _SIX
        nibbles = v[3] | (v[2] & _ONE) << _THREE
        return np.concatenate([first, nibbles[..., :32] | nibbles[..., 32:] << _FOUR], axis=-1)
    lines = [v[i] | v[i + 1] << _THREE for i in (0, 2, 4)]
    lines[0] = lines[0] | v[6] >> _ONE << _SIX
    lines[1] = lines[1] | v[7] >> _ONE << _SIX
    lines[2] = lines[2] | (v[6] & _ONE) << _SIX | (v[7] & _ONE) << _SEVEN
    return np.concatenate(lines, axis=-1)


def split_threes(packed: Bytes) -> Bytes:
    """The inverse of `join_threes`."""
    a = packed[..., :64]
    if packed.shape[-1] == 96:
        nibbles = np.concatenate([packed[..., 64:] & 15, packed[..., 64:] >> _FOUR], axis=-1)
        third = a >> _SIX << _ONE | nibbles >> _THREE
        return np.stack([a & _SEVEN, a >> _THREE & _SEVEN, third, nibbles & _SEVEN], axis=-2)
    b, c = packed[..., 64:128], packed[..., 128:]
    low = [part for line in (a, b, c) for part in (line & _SEVEN, line >> _THREE & _SEVEN)]
    low += [a >> _SIX << _ONE | c >> _SIX & _ONE, b >> _SIX << _ONE | c >> _SEVEN]
    return np.stack(low, axis=-2)


def join_iq4(numbers: Array) -> Bytes:
    """Rows (n, inputs) of 0..15, whole groups of them, as bytes (n, inputs / 2)."""
    parts = []
    for blocks in blocks_of(numbers, 32):
        fours = blocks.reshape(*blocks.shape[:2], -1, 8, 4).swapaxes(2, 3)
        lines = fours[:, :, :4] | fours[:, :, 4:] << _FOUR
        parts.append(lines.reshape(len(numbers), -1))
    return np.concatenate(parts, axis=1)


def split_iq4(packed: Bytes) -> Bytes:
    """The inverse of `join_iq4`."""
    parts = []
    for blocks in blocks_of(packed, 16):
        lines = blocks.reshape(*blocks.shape[:2], 4, -1, 4)
        fours = np.concatenate([lines & 15, lines >> _FOUR], axis=2)
        parts.append(fours.swapaxes(2, 3).reshape(len(packed), -1))
    return np.concatenate(parts, axis=1)


def join_sixes(scales: Array) -> Bytes:
    """Scales -32..31 of a multiple of eight groups, six bits each, the first lowest."""
    eights = (scales.astype(np.uint8) + np.uint8(32)).reshape(*scales.shape[:-1], -1, 8)
    bits = np.unpackbits(eights[..., None], axis=-1, count=6, bitorder="little")
    packed: Bytes = np.packbits(bits.reshape(*eights.shape[:-1], 48), axis=-1, bitorder="little")
    return packed.reshape(*scales.shape[:-1], -1)


def split_sixes(packed: Bytes) -> Array:
    """The inverse of `join_sixes`."""
    bits = np.unpackbits(packed, axis=-1, bitorder="little")
    sixes = bits.reshape(*packed.shape[:-1], -1, 6) @ (1 << np.arange(6, dtype=np.uint8))
    return (sixes.astype(np.int8) - np.int8(32)).astype(np.int8)
