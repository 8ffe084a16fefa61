"""The names of the files of a split GGUF model: `NAME-00002-of-00003.gguf`.

llama.cpp writes a large model into several files and finds the others by these names. Opens no
file and needs no package, since a start whose model is packed asks for the names too.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TypeVar

AnyPath = TypeVar("AnyPath", bound=PurePath)
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE | re.DOTALL)


def part_of(path: PurePath) -> tuple[int, int] | None:
    """(number, count) of a part by its name, from 1; None: the name is not that of a part."""
    match = _PART.fullmatch(path.name)
    return (int(match[2]), int(match[3])) if match else None


def parts_beside(path: AnyPath) -> list[AnyPath]:
    """The paths of all parts, there or not, that belong to a part; of another file itself."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    name, count, suffix = match[1], match[3], match[4]
    numbers = range(1, int(count) + 1)
    return [path.with_name(f"{name}-{each:05d}-of-{count}{suffix}") for each in numbers]


def whole_name(path: AnyPath) -> AnyPath:
    """The path of a part without its number, `NAME.gguf`; of another file the path itself."""
    match = _PART.fullmatch(path.name)
    return path.with_name(match[1] + match[4]) if match and match[1] else path
