"""The files of a tokenizer: their names, how large they may be, and what is taken from each.

All of them are JSON objects of strangers, but for the chat template, which is text. Every failure
is one sentence. Knows nothing of what tokens mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparity_edge.errors import SourceError

TOKENIZER_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"  # a SentencePiece model, of which sources make tokenizer.json
CONFIG_FILE = "tokenizer_config.json"
NAMED_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
TEMPLATE_FILE = "chat_template.jinja"
# The largest tokenizer.json of a Llama-shaped model has 33 MB (262,144 entries), the largest
# tokenizer_config.json 1.2 MB (6,415 added tokens), real templates 0.3 to 20 thousand characters.
MAX_BYTES: Mapping[str, int] = {
    TOKENIZER_FILE: 128 << 20,
    CONFIG_FILE: 16 << 20,
    NAMED_FILE: 16 << 20,
    ADDED_FILE: 16 << 20,
    TEMPLATE_FILE: 1 << 20,
}
TOKENIZER_FILES = tuple(MAX_BYTES)


def read_files(folder: Path) -> dict[str, bytes]:
    """Contents of the tokenizer's files that stand in a folder, each at most a byte too long.

    Raises:
        SourceError: a file cannot be read.
    """
    files: dict[str, bytes] = {}
    for name, most in MAX_BYTES.items():
        path = folder / name
        try:
            if path.is_file():
                with path.open("rb") as stream:
                    files[name] = stream.read(most + 1)
        except OSError as error:
            raise SourceError(
                f"{path}: cannot be read ({error.strerror or error}); check its permissions."
            ) from error
    return files


def check_sizes(files: Mapping[str, bytes]) -> None:
    """Refuse what is larger than any tokenizer's file of that name.

    Raises:
        SourceError: a file is too large.
    """
    for name, content in files.items():
        most = MAX_BYTES.get(name, 0)
        if len(content) > most:
            raise SourceError(
                f"{name} has over {most >> 20} MiB, more than any tokenizer needs; it is not read."
            )


def parse_file(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The JSON object in a file; an empty one where the file is not there.

    Raises:
        SourceError: it is no JSON object.
    """
    try:
        value = json.loads(files.get(name, b"{}"))
    except (ValueError, RecursionError):
        raise SourceError(f"{name} is not JSON; fetch it again.") from None
    if not isinstance(value, dict):
        raise SourceError(f"{name} is not a JSON object; fetch it again.")
    return value


def template_of(files: Mapping[str, bytes], config: Mapping[str, Any]) -> str | None:
    """The chat template: its own file, else a text in the configuration, else its "default".

    Args:
        files: contents of files by name.
        config: content of tokenizer_config.json.

    Raises:
        SourceError: what stands there is no text, or too long.
    """
    if TEMPLATE_FILE in files:
        return files[TEMPLATE_FILE].decode("utf-8", "replace")
    value = config.get("chat_template")
    if isinstance(value, list):
        entries = [entry for entry in value if isinstance(entry, dict)]
        named = [entry.get("template") for entry in entries if entry.get("name") == "default"]
        value = named[-1] if named else None
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_BYTES[TEMPLATE_FILE]:
        raise SourceError(
            f"{CONFIG_FILE}: chat_template is neither a text of at most "
            f"{MAX_BYTES[TEMPLATE_FILE]} characters nor a list of named templates; remove it."
        )
    # Half a surrogate pair, which JSON can hold and no file, becomes a question mark.
    return value.encode("utf-8", "replace").decode("utf-8")
