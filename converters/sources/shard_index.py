"""model.safetensors.index.json: which files of a folder, or of the Hub, hold a model's weights.

Like transformers it takes from the index the names of the files and nothing else: which tensors a
file holds stands in the file, so an index may name tensors that nobody needs or put them elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from converters.sources.source import unreadable
from sparity_edge.errors import SourceError, library_words

# The largest known index has 10 MB.
MAX_JSON_BYTES = 128 << 20


def shard_names(index: Path) -> list[str]:
    """The files that an index names, in alphabetical order.

    Args:
        index: the index, in the folder of the files.

    Raises:
        SourceError: it cannot be read, names nothing, or names what is no file of its folder.
    """
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise SourceError(f"{index}: weight_map is missing; fetch the file again.")
    for tensor, name in weight_map.items():
        if not _is_plain_name(name):
            raise SourceError(
                f"{index}: tensor {ascii(tensor)[:80]} is said to be in {ascii(name)[:80]}, which "
                "is not the plain name of a safetensors file in this folder."
            )
    return sorted(set(weight_map.values()))


def _is_plain_name(name: object) -> bool:
    """Whether it names a safetensors file in the folder itself, on every system."""
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and name.isprintable()
        and not any(character in "/\\:" for character in name)
        and not name.startswith(".")
    )


def read_bounded(path: Path, limit: int) -> bytes:
    """Content of a file of at most `limit` bytes.

    Raises:
        SourceError: the file cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) > limit:
        raise SourceError(f"{path}: larger than {limit} bytes, so it is not what its name says.")
    return content


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        SourceError: it cannot be read, is too large, or holds no JSON object.
    """
    try:
        value = json.loads(read_bounded(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:  # bad UTF-8 is a ValueError too
        raise SourceError(
            f"{path}: not valid JSON ({library_words(error)}); fetch the file again."
        ) from error
    if not isinstance(value, dict):
        raise SourceError(f"{path}: not a JSON object; fetch the file again.")
    return value
