"""The manifest of a packed folder, sparity.json: which files belong to it, and their checksums.

Knows names, sizes and the version of the format; what is in the files is format.py's concern.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparity_edge.errors import FormatError
from sparity_edge.packed.shards import (
    FORMAT_VERSION,
    LORA_VERSION,
    MAX_JSON_BYTES,
    PLAN_FILE,
    ROTATED_VERSION,
    damaged,
    parse_object,
    refuse_other_version,
    shown,
)

MANIFEST = "sparity.json"
LOCK_FILE = ".sparity.json.lock"  # empty; held by whoever adds or removes plans
FORMAT_NAME = "sparity-edge"
# What is kept of the card of a model's source, by the names that cards on the Hub give it.
LICENSE_KEYS = ("license", "license_name", "license_link")
CARD_KEYS = (*LICENSE_KEYS, "base_model")
MAX_FACT = 500  # characters


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a packed folder, be it damaged."""
    # Unlike Path.is_file this answers for names that the system refuses to look up.
    return os.path.isfile(os.path.join(path, MANIFEST))  # noqa: PTH113, PTH118


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read sparity.json and check that its files are there in the sizes it names.

    Plans are exempt, since a model whose plan is damaged can still be used densely.

    Raises:
        FormatError: it is damaged, of another version, or a file is missing or truncated.
        OSError: it cannot be read.
    """
    manifest = _parse_manifest(folder)
    _refuse_version(folder, manifest)
    for name, entry in manifest["files"].items():
        _check_file(folder, name, entry)
    return manifest


def listed_files(folder: Path) -> set[str]:
    """Names of all files that belong to a packed folder, be it damaged or of another version.

    Raises:
        FormatError: the manifest is none of a packed model.
        OSError: it cannot be read.
    """
    return {MANIFEST, *_parse_manifest(folder)["files"]}


def files_to_fetch(folder: Path) -> set[str]:
    """Names of the files of a packed folder of which only the manifest is there yet.

    Raises:
        FormatError: it is damaged, of another version, or lists what is no plain file name.
        OSError: it cannot be read.
    """
    manifest = _parse_manifest(folder)
    _refuse_version(folder, manifest)
    for name, entry in manifest["files"].items():
        _check_entry(folder, name, entry)
    return {MANIFEST, *manifest["files"]}


def content_of(folder: Path) -> str:
    """SHA-256, in hex, of what a packed folder holds besides its plans, by its manifest.

    Raises:
        FormatError: it has no valid manifest.
        OSError: it cannot be read.
    """
    files = read_manifest(folder)["files"]
    own = {name: entry["sha256"] for name, entry in files.items() if not PLAN_FILE.fullmatch(name)}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def notes_in(manifest: Mapping[str, Any]) -> list[str]:
    """What was read otherwise than the model's source has it, a sentence each."""
    notes = manifest.get("notes")
    return [each for each in notes if isinstance(each, str)] if isinstance(notes, list) else []


def card_in(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a manifest keeps of the card of the model's source: licence and base model."""
    card = manifest.get("card")
    return card_facts(card) if isinstance(card, dict) else {}


def card_facts(data: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a card that a manifest keeps: those that are short texts of one line.

    Args:
        data: anything that was read of a card.
    """
    found = {key: data.get(key) for key in CARD_KEYS}
    return {
        key: value.strip()
        for key, value in found.items()
        if isinstance(value, str)
        and value.strip()
        and len(value) <= MAX_FACT
        and value.strip().isprintable()
    }


def encode_manifest(manifest: Mapping[str, Any]) -> bytes:
    """The content of sparity.json."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="replace")


def check_size(folder: Path, name: str, size: int) -> None:
    """Refuse a file that is not there in the size that the manifest names.

    Raises:
        FormatError: it is missing or truncated.
        OSError: the system refuses to look it up.
    """
    if not (folder / name).is_file():
        raise damaged(folder / name, "is missing")
    actual = (folder / name).stat().st_size
    if actual != size:
        raise damaged(folder / name, f"should have {size} bytes but has {actual}")


def read_bounded(path: Path) -> bytes:
    """The content of a small file, refused where it is far too large."""
    with path.open("rb") as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise damaged(path, "is far too large")
    return content


def _parse_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not is_packed(folder):
        raise FormatError(
            f"{folder} is not a packed model: it has no {MANIFEST}; "
            "make one with sparity-edge convert SOURCE OUT."
        )
    manifest = parse_object(read_bounded(path), path)
    if manifest.get("format") != FORMAT_NAME:
        raise damaged(path, "is not the manifest of a packed model")
    if not isinstance(manifest.get("files"), dict):
        raise damaged(path, "lists no files")
    return manifest


def _refuse_version(folder: Path, manifest: Mapping[str, Any]) -> None:
    versions = (FORMAT_VERSION, ROTATED_VERSION, LORA_VERSION)
    refuse_other_version(manifest.get("version"), folder / MANIFEST, versions)


def _check_file(folder: Path, name: str, entry: Any) -> None:
    size = _check_entry(folder, name, entry)
    if not PLAN_FILE.fullmatch(name):
        check_size(folder, name, size)


def _check_entry(folder: Path, name: str, entry: Any) -> int:
    """The size that a manifest gives a file."""
    path = folder / MANIFEST
    if not _is_plain(name):
        raise damaged(path, f"lists {shown(name)}, which is not a plain file name")
    size = entry.get("size") if isinstance(entry, dict) else None
    if type(size) is not int or not isinstance(entry.get("sha256"), str):
        raise damaged(path, f"lists {name} without size or SHA-256")
    return size


def _is_plain(name: str) -> bool:
    """A file name without a path, also in the eyes of Windows."""
    return name.isprintable() and not set(name) & set("/\\:") and name.strip(". ") != ""
