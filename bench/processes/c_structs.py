"""Structures of a C header as ctypes sees them.

A fork of llama.cpp changes its parameters every few weeks, and a field that is missed moves all
behind it. So the fields are read from the header that came with the library. Knows plain fields
alone: numbers, enums, pointers and callbacks; arrays, bit fields and unions stop the program.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any

NUMBERS: dict[str, Any] = {
    "bool": ctypes.c_bool, "float": ctypes.c_float, "double": ctypes.c_double,
    "int": ctypes.c_int, "size_t": ctypes.c_size_t, "int8_t": ctypes.c_int8,
    "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
}  # fmt: skip
FIELD = re.compile(r"(?:const\s+)?((?:struct\s+|enum\s+)?\w+)\s*([*\s]*?)(\w+)")


def structure(header: str, name: str) -> Any:
    """Return a structure as a class of ctypes.

    Args:
        header: the text of the header.
        name: of the structure.

    Raises:
        ValueError: the header does not declare it, or a field is of an unknown kind.
    """
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", header, flags=re.S)
    found = re.search(rf"\bstruct\s+{name}\s*\{{([^{{}}]*)\}}", text)
    if found is None:
        raise ValueError(f"the header declares no plain struct {name}")
    aliases = re.findall(r"typedef\s+(\w+)\s+(\w+)\s*;", text)
    numbers = {**NUMBERS, **{new: NUMBERS[old] for old, new in aliases if old in NUMBERS}}
    fields = [_field(part, numbers) for part in found[1].split(";") if part.strip()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def _field(declaration: str, numbers: dict[str, Any]) -> tuple[str, Any]:
    found = re.fullmatch(
        r"\s*(?:const\s+)?((?:struct\s+|enum\s+)?\w+)\s*([*\s]*?)(\w+)\s*", declaration
    )
    if found is None:
        raise ValueError(f"{' '.join(declaration.split())!r} is no plain field")
    kind, stars, name = found.groups()
    if "*" in stars or kind.endswith(("_callback", "_buffer_type_t")):
        return name, ctypes.c_void_p
    if kind.startswith("enum"):
        return name, ctypes.c_int
    if kind not in numbers:
        raise ValueError(f"{name} is of the unknown kind {kind}")
    return name, numbers[kind]
