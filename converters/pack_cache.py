"""The pack cache on disk: packs by key, and request files that lead to them.

A pack is a packed folder named after its key; a request file, named after the hash of what a
user asked for, holds the key of the pack that it led to. Everything here may be damaged or deleted
at any time: then it is made again. Knows neither sources nor how a pack is made (store.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.screen_place import screens, screens_of
from sparity_edge.errors import FormatError, OptionError
from sparity_edge.packed.manifest import MANIFEST, is_packed, read_manifest
from sparity_edge.spelling import did_you_mean
from sparity_edge.system.atomic import one_sentence, replace_file
from sparity_edge.system.folders import cache_root, calibrations_root, work_folders
from sparity_edge.system.host import bytes_in
from sparity_edge.system.leftovers import leftovers, partial_name, remove_leftover
from sparity_edge.system.use_marks import in_use

SHORTEST_KEY = 6  # digits that stand for a key
_KEY_LENGTH = 64  # hex digits of a SHA-256
_MAX_REQUEST_BYTES = 1 << 16


@dataclass(frozen=True)
class Entry:
    """One pack in the pack cache."""

    key: str
    name: str  # what the user named when it was packed
    options: dict[str, Any]
    nbytes: int  # of all files
    last_used: float  # seconds since 1970
    path: Path


def entries() -> list[Entry]:
    """All packs in the pack cache, by name."""
    found = [entry for path in _folders(packs()) if (entry := _entry(path)) is not None]
    return sorted(found, key=lambda entry: (entry.name, entry.key))


def named(name: str, found: Iterable[Entry]) -> list[Entry]:
    """The entries that a name, or the beginning of a key, stands for."""
    by_key = len(name) >= SHORTEST_KEY
    return [each for each in found if each.name == name or (by_key and each.key.startswith(name))]


def clear(name: str | None = None) -> list[Entry]:
    """Remove packs from the pack cache, with the screens of LM heads that serve no other pack.

    Args:
        name: the name or the beginning of the key of an entry; None: all of them, and all screens,
            but no packs that are in use.

    Returns:
        The entries that were removed.

    Raises:
        OptionError: no entry has that name, or one that has it is in use.
        FormatError: a folder cannot be removed.
    """
    everything = entries()
    if name is not None:
        chosen = named(name, everything)
        if not chosen:
            names = sorted({entry.name for entry in everything})
            raise OptionError(
                f"The pack cache holds no {name!r}; it holds {', '.join(names) or 'nothing'}."
                + did_you_mean(name, names)
            )
        drop(chosen)
        return chosen
    chosen = [entry for entry in everything if not is_in_use(entry)]
    drop(chosen)
    for path in _folders(packs()):
        if _is_key(path.name) and not is_packed(path):
            remove(path)
    if len(chosen) == len(everything):  # nor can calibrations of them go on
        shutil.rmtree(calibrations_root(), ignore_errors=True)
        _forget(set(), everything=True)
        with one_sentence(screens()), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(screens())
    return chosen


def drop(chosen: Iterable[Entry]) -> None:
    """Remove packs, what leads to them, and the screens of LM heads that serve no other pack.

    Raises:
        OptionError: one of them is in use; none is removed then.
        FormatError: a folder cannot be removed.
    """
    chosen = list(chosen)
    for entry in chosen:
        if is_in_use(entry):
            raise OptionError(
                f"{entry.name} ({entry.key[:12]}) is in use by a process that runs; end that first."
            )
    going = {each.path for each in chosen}
    staying = {each.path for each in entries()} - going
    needless = screens_of(going) - screens_of(staying)
    for entry in chosen:
        remove(entry.path)
    for screen in needless:
        with contextlib.suppress(OSError):
            screen.unlink()
    _forget({entry.key for entry in chosen}, everything=False)


def is_in_use(entry: Entry) -> bool:
    """Whether a process has the pack loaded, reads it, or writes to it."""
    with contextlib.suppress(OSError):
        return in_use([entry.path, *entry.path.iterdir()])
    return False


def clear_leftovers() -> tuple[int, int]:
    """Remove what ended processes left behind in the pack cache and in the current folder.

    Returns:
        How many files and folders, and their bytes.
    """
    found = leftovers(work_folders())
    freed = sum(bytes_in(path) for path in found)
    for path in found:
        remove_leftover(path)
    return len(found), freed


def is_complete(target: Path) -> bool:
    """Whether all files of a pack are there in full size; their content `verify` looks at."""
    try:
        read_manifest(target)
    except (FormatError, OSError):
        return False
    return True


def packs() -> Path:
    """The folder of all packs, each in a folder named after its key."""
    return cache_root() / "packed"


def requests() -> Path:
    """The folder of request files, each of which names the key of a pack."""
    return cache_root() / "requests"


def look_up(request: Path) -> Path | None:
    """The pack that a request led to last time, if both are still whole."""
    try:
        with request.open("rb") as file:
            content = json.loads(file.read(_MAX_REQUEST_BYTES))
        key = content["key"]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return None
    if not isinstance(key, str) or not _is_key(key):
        return None
    target = packs() / key
    if not is_complete(target):
        return None
    touch(target)
    return target


def remember(request: Path, target: Path) -> None:
    """Have a request lead to a pack; best effort, without the file the next start looks longer."""
    with contextlib.suppress(OSError):
        request.parent.mkdir(parents=True, exist_ok=True)
        replace_file(request, [json.dumps({"key": target.name}).encode()])


def touch(target: Path) -> None:
    """Note that a pack was used now; a read-only cache can be used, it only does not know when."""
    with contextlib.suppress(OSError):
        os.utime(target / MANIFEST)


def _forget(keys: set[str], *, everything: bool) -> None:
    if not requests().is_dir():
        return
    for request in requests().iterdir():
        if everything or _key_of(request) in keys:
            with contextlib.suppress(OSError):
                request.unlink()


def _key_of(request: Path) -> str | None:
    try:
        value = json.loads(request.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    key = value.get("key") if isinstance(value, dict) else None
    return key if isinstance(key, str) else None


def _is_key(name: str) -> bool:
    return len(name) == _KEY_LENGTH and not set(name) - set("0123456789abcdef")


def _folders(parent: Path) -> Iterator[Path]:
    """The real folders in `parent`; links could lead out of the pack cache."""
    paths: list[Path] = []
    with contextlib.suppress(OSError):
        paths = sorted(parent.iterdir())
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            yield path


def _entry(path: Path) -> Entry | None:
    if not _is_key(path.name) or not is_packed(path):
        return None
    try:
        manifest = read_manifest(path)
    except (FormatError, OSError):
        manifest = {}
    name, options = manifest.get("source"), manifest.get("options")
    with contextlib.suppress(OSError):
        return Entry(
            path.name,
            name if isinstance(name, str) and name.isprintable() else "damaged",
            options if isinstance(options, dict) else {},
            sum(item.stat().st_size for item in path.iterdir()),
            (path / MANIFEST).stat().st_mtime,
            path,
        )
    return None


def remove(path: Path) -> None:
    """Remove a pack; it is hidden first, so that a killed removal leaves no half pack."""
    hidden = path
    with one_sentence(path):
        if not path.name.startswith("."):
            hidden = path.with_name(partial_name(path.name))
            path.rename(hidden)
        shutil.rmtree(hidden)
