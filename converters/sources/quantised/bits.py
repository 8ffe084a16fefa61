"""Bits of packed words to bytes: the lowest bits of a word, or of a row of words, come first.

Numbers of 4 and 8 bits, which is what nearly all files hold, are taken apart without a loop over
bits; 2 bits are four fours, and other widths go by single bits. Knows nothing of formats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


def unpack_rows(words: Array, bits: int) -> Bytes:
    """Numbers of each row of words, as uint8 (rows, bits of a row / bits).

    Args:
        words: (rows, n) of any integer type, a row one stream of bits from its lowest bit on.
        bits: of one number, 1 to 8; numbers that a row's end cuts are left out.
    """
    stream = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1)
    if bits == 8:
        return stream
    if bits == 4:
        return _twice(stream, 4)
    if bits == 2:
        return _twice(_twice(stream, 4), 2)
    single = np.unpackbits(stream, axis=1, bitorder="little")
    count = single.shape[1] // bits
    numbers = single[:, : count * bits].reshape(len(words), count, bits)
    weights = (1 << np.arange(bits)).astype(np.uint8)
    result: Bytes = (numbers * weights).sum(axis=2, dtype=np.uint8)
    return result


def _twice(stream: Bytes, bits: int) -> Bytes:
    """The lower and the upper `bits` bits of the lower 2 * bits of each byte, side by side."""
    wide = stream.astype("<u2")
    wide |= wide << (8 - bits)
    wide &= ((1 << bits) - 1) * 0x0101
    return wide.view(np.uint8).reshape(len(stream), -1)
