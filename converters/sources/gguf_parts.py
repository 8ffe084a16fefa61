"""A GGUF model in one file or in several, as llama-gguf-split writes them: one header of all.

Any part opens all of them. The first holds the metadata, each holds some of the tensors, and
their names tell the others. Knows nothing of what tensors and metadata mean.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters.sources.gguf_header import read_header
from converters.sources.gguf_metadata import GgufHeader, TensorInfo
from sparity_edge.errors import SourceError
from sparity_edge.system.split_files import part_of, parts_beside

MAX_NAMED = 8  # missing parts that a message names


def read_parts(path: Path, label: str) -> tuple[GgufHeader, tuple[Path, ...]]:
    """Read the header of a file, and of all other parts where it is one of several.

    Args:
        path: the file, or any part.
        label: what errors call it.

    Returns:
        The metadata of the first part with the tensors of all, whose `part` counts the paths.

    Raises:
        SourceError: a file is missing or damaged, or the parts do not belong together.
    """
    header = read_header(path, label)
    count = _number(header, "split.count", 1)
    if count <= 1:
        return header, (path,)
    paths = _paths(path, header, count)
    headers = [read_header(each, f"{label}, part {each.name}") for each in paths]
    tensors: dict[str, TensorInfo] = {}
    for part, each in enumerate(headers):
        if (_number(each, "split.no", 0), _number(each, "split.count", 1)) != (part, count):
            raise SourceError(
                f"{each.label}: it does not say of itself that it is part {part + 1} of {count}; "
                "fetch all parts again."
            )
        for name, info in each.tensors.items():
            if name in tensors:
                raise SourceError(f"{label}: two parts hold a tensor {name[:60]!r}; fetch again.")
            tensors[name] = replace(info, part=part)
    _check_total(headers[0], label, len(tensors))
    return GgufHeader(label, headers[0].metadata, tensors), paths


def _number(header: GgufHeader, key: str, default: int) -> int:
    """A number that is not there in files of one part, and is junk where it is none."""
    value = header.whole(key) if key in header.metadata else None
    return default if value is None else value


def _paths(path: Path, header: GgufHeader, count: int) -> tuple[Path, ...]:
    number = _number(header, "split.no", 0) + 1
    what = f"this is part {number} of {count} of a model"
    if part_of(path) != (number, count):
        raise SourceError(
            f"{header.label}: {what}, but its name does not end in "
            f"-{number:05d}-of-{count:05d}.gguf, by which the other parts are found; give all "
            "parts their names back, or join them with: llama-gguf-split --merge"
        )
    paths = tuple(parts_beside(path))
    if missing := [each.name for each in paths if not each.is_file()]:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        are = "is" if len(missing) == 1 else "are"
        raise SourceError(
            f"{header.label}: {what}, and {', '.join(missing[:MAX_NAMED])}{more} {are} not beside "
            "it; fetch all parts into one folder and name any of them."
        )
    return paths


def _check_total(first: GgufHeader, label: str, found: int) -> None:
    total = _number(first, "split.tensors.count", found)
    if total != found:
        raise SourceError(
            f"{label}: the parts hold {found} tensors, but split.tensors.count={total}; one of "
            "them is of another model or damaged; fetch all parts again."
        )
