"""The header of a GGUF file: metadata and where each tensor lies, every number checked.

GGUFReader of the gguf package is not used for this. It took 6.7 s on a file with 151,936 tokens
(this takes 0.2 s), and on a list whose length is a lie it goes on until the memory is full. The
layout is that of docs/gguf.md in the ggml project, versions 2 and 3. This module knows no tensor
names and no architecture.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from converters.sources.gguf_metadata import MAX_SHOWN, GgufHeader, TensorInfo, Unusable, Value
from converters.sources.source import unreadable
from sparity_edge.errors import SourceError

VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = dict(enumerate("BbHhIif?")) | dict(enumerate("Qqd", start=10))  # type -> struct code
# Bounds on what a lying header can make us read; the largest real one is about 20 MB with 256,000
# tokens and 1,200 tensors.
MAX_HEADER_BYTES = 128 << 20
MAX_KEYS = 1 << 12
MAX_TENSORS = 1 << 15
MAX_ARRAY = 1 << 22
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
MAX_NESTING = 4  # of lists in lists


Kind = TypeVar("Kind")


class _LieError(Exception):
    """What the header says cannot be or is not known; goes into the sentence of the SourceError."""

    def __init__(self, text: str, remedy: str = "fetch it again") -> None:
        super().__init__(text)
        self.remedy = remedy


def read_header(path: Path, label: str) -> GgufHeader:
    """Read and check the header.

    Args:
        path: the file.
        label: what errors call the file.

    Raises:
        SourceError: the file cannot be read, is no GGUF file, is cut short or says what cannot be.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            metadata, tensors = _parse(_Cursor(file, min(size, MAX_HEADER_BYTES)), size)
    except OSError as error:
        raise unreadable(path, error) from error
    except _LieError as lie:
        raise SourceError(f"{label}: not a usable GGUF file: {lie}; {lie.remedy}.") from lie
    return GgufHeader(label, metadata, tensors)


class _Cursor:
    """Reads little-endian values forward and never beyond the end it was given."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self._end, self.position = file, end, 0

    def take(self, count: int) -> bytes:
        if count > self._end - self.position:
            raise _LieError("it is cut short or its header is too large")
        content = self._file.read(count)
        if len(content) != count:
            raise _LieError("it is cut short")
        self.position += count
        return content

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> bytes:
        return self.take(self.number("Q"))

    def count(self, what: str, most: int) -> int:
        value: int = self.number("Q")
        if value > most:
            raise _LieError(f"it claims to have {value} {what}, more than {most}")
        return value


def _parse(cursor: _Cursor, size: int) -> tuple[dict[str, Value], dict[str, TensorInfo]]:
    if cursor.take(4) != b"GGUF":
        raise _LieError("the first four bytes are not GGUF")
    version = cursor.number("I")
    if version and version & 0xFFFF == 0:
        raise _LieError("it is big-endian, which is not supported", "take a little-endian one")
    if version not in VERSIONS:
        lie = f"its version is {version}, only 2 and 3 are supported"
        raise _LieError(lie, "take a file of such a version")
    tensor_count = cursor.count("tensors", MAX_TENSORS)
    key_count = cursor.count("metadata keys", MAX_KEYS)
    metadata = _named(cursor, key_count, "key", _value)
    places = _named(cursor, tensor_count, "tensor", _place)
    alignment = _alignment(metadata.get("general.alignment", 32))
    start = -(-cursor.position // alignment) * alignment
    return metadata, {
        name: _tensor(name, place, start, alignment, size) for name, place in places.items()
    }


def _alignment(value: Value) -> int:
    if not isinstance(value, int) or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise _LieError(f"general.alignment is {value!r}, not a power of two")
    return value


def _named(
    cursor: _Cursor, count: int, what: str, parse: Callable[[_Cursor], Kind]
) -> dict[str, Kind]:
    result: dict[str, Kind] = {}
    for _ in range(count):
        # What is no UTF-8 is still told apart, and is no name that anybody asks for.
        name = cursor.string().decode("utf-8", "backslashreplace")
        if name in result:
            raise _LieError(f"{what} {name[:MAX_SHOWN]!r} occurs twice")
        result[name] = parse(cursor)
    return result


def _value(cursor: _Cursor) -> Value:
    kind = cursor.number("I")
    if kind == STRING:
        content = cursor.string()
        return _text(lambda: content.decode("utf-8"))
    if kind == ARRAY:
        return _list(cursor)
    number: Value = cursor.number(_scalar(kind))
    return number


def _list(cursor: _Cursor, depth: int = 1) -> Value:
    kind, count = cursor.number("I"), cursor.count("items in a list", MAX_ARRAY)
    if kind == STRING:
        contents = [cursor.string() for _ in range(count)]
        return _text(lambda: [content.decode("utf-8") for content in contents])
    if kind == ARRAY:
        if depth == MAX_NESTING:
            raise _LieError(f"a metadata value has lists in lists deeper than {MAX_NESTING}")
        for _ in range(count):
            _list(cursor, depth + 1)
        return Unusable("is a list of lists")
    code = _scalar(kind)
    return np.frombuffer(cursor.take(count * struct.calcsize("<" + code)), dtype="<" + code)


def _text(decode: Callable[[], Value]) -> Value:
    try:
        return decode()
    except UnicodeDecodeError:
        return Unusable("is a text that is not UTF-8")


def _scalar(kind: int) -> str:
    if kind not in SCALARS:
        raise _LieError(f"a metadata value has the unknown type {kind}")
    return SCALARS[kind]


def _place(cursor: _Cursor) -> tuple[tuple[int, ...], int, int]:
    """Shape, number type and offset as written; dimensions are stored innermost first."""
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise _LieError(f"a tensor has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    return shape[::-1], cursor.number("I"), cursor.number("Q")


def _tensor(
    name: str, place: tuple[tuple[int, ...], int, int], start: int, alignment: int, size: int
) -> TensorInfo:
    shape, number, offset = place
    named = f"tensor {name[:MAX_SHOWN]!r}"
    try:
        kind = GGMLQuantizationType(number)
    except ValueError as error:
        raise _LieError(
            f"{named} has number type {number}, which this version does not know",
            "take a file in Q8_0 or Q4_K_M",
        ) from error
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if shape[-1] % block:
        raise _LieError(f"rows of {named} have {shape[-1]} numbers, no multiple of {block}")
    row_bytes = shape[-1] // block * block_bytes
    if offset % alignment:
        raise _LieError(f"{named} starts at {offset}, no multiple of {alignment}")
    if start + offset + math.prod(shape[:-1]) * row_bytes > size:
        raise _LieError(f"{named} reaches beyond the end of the file, which may be cut short")
    return TensorInfo(shape, kind, start + offset, row_bytes)
