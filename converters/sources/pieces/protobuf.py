"""The wire format of protocol buffers, as far as tokenizer.model needs it, read without trust.

https://protobuf.dev/programming-guides/encoding: a message is a row of fields, each a number, a
type and a value. Knows no message.
"""

from __future__ import annotations

from collections.abc import Iterator

Value = int | bytes

MAX_VARINT = 10  # bytes
_FIXED = {1: 8, 5: 4}  # bytes of a value by its type


class MalformedError(ValueError):
    """The bytes are no message."""


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Number and value of each field: an int, or the bytes of a text, message or float.

    Args:
        message: from outside.

    Raises:
        MalformedError: it is none.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise MalformedError(f"a field has type {kind}")
        if size > len(message) - place:
            raise MalformedError("it ends within a field")
        yield number, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = 0
    for index, byte in enumerate(message[place : place + MAX_VARINT]):
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, place + index + 1
    raise MalformedError("it ends within a number")
