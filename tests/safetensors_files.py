"""Safetensors files taken apart and put together by hand: the JSON header and the data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def taken_apart(path: Path) -> tuple[bytes, bytes]:
    """(text of the header, data behind it)."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], content[end:]


def put_together(path: Path, header: bytes, data: bytes, alignment: int = 1) -> None:
    """Write the file anew; the header is filled up with blanks until the data are aligned."""
    header = header.ljust(-(-(len(header) + 8) // alignment) * alignment - 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def edit_metadata(
    path: Path, key: str, change: Callable[[dict[str, Any], dict[str, Any]], Any]
) -> None:
    """Change the header and the JSON that its metadata hold under a key; data stay aligned."""
    text, data = taken_apart(path)
    header = json.loads(text)
    fields = json.loads(header["__metadata__"][key])
    before = json.dumps(fields)
    change(header, fields)
    if json.dumps(fields) != before:
        header["__metadata__"][key] = json.dumps(fields)
    put_together(path, json.dumps(header).encode(), data, 64)
