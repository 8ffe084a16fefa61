"""The cache of packed models: what is not packed yet is packed once.

A pack is keyed by the content of its source, the options and the format version. Small request
files lead from what the user names (a hub id, or a local path with size and time of each file) to
that key, so that a second start touches neither the network nor the source. Everything here may
be damaged or deleted at any time: then it is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import FormatError, OptionError
from sparity_edge.packed.manifest import MANIFEST, is_packed, read_manifest
from sparity_edge.packed.shards import FORMAT_VERSION
from sparity_edge.progress import Progress, silent
from sparity_edge.system.atomic import is_stale, one_sentence, partial_name
from sparity_edge.system.folders import CACHE_VARIABLE, cache_root

if TYPE_CHECKING:
    from converters.pack import PackOptions
    from converters.sources.source import Source

_KEY_LENGTH = 64  # hex digits of a SHA-256
_MAX_REQUEST_BYTES = 1 << 16


@dataclass(frozen=True)
class Entry:
    """One pack in the cache."""

    key: str
    name: str  # what the user named when it was packed
    options: dict[str, Any]
    nbytes: int  # of all files
    last_used: float  # seconds since 1970
    path: Path


def prepare(
    model: str,
    options: PackOptions,
    *,
    offline: bool = False,
    progress: Progress = silent,
    notify: Callable[[str], None] = lambda _: None,
) -> Path:
    """The packed folder of a model, packing it into the cache where that has not been done.

    Args:
        model: a packed folder, a Hugging Face folder, a GGUF file, a hub id or an alias.
        options: number format and layout. A packed folder that is named must agree with them.
        offline: use only what is on this machine.
        progress: told of downloads and packing.
        notify: given one sentence before a model is packed.

    Raises:
        OptionError: a packed folder was named and holds other numbers than asked for.
        SourceError, ConfigError, FormatError: the model cannot be found, read or packed.
    """
    path = _local_path(model)
    if is_packed(path):
        from converters.agreement import refuse_disagreement

        refuse_disagreement(path, options)
        return path
    request = _requests() / f"{_request_key(model, path, options)}.json"
    known = _look_up(request)
    if known is not None:
        return known
    with open_any(model, offline=offline, progress=progress) as source:
        target = _packs() / _digest(source.fingerprint(), asdict(options), FORMAT_VERSION)
        if not _is_complete(target):
            notify(f"Packing {model} into the cache, once ({_describe(options)}): {target}")
            _pack(source, target, options, progress)
    _remember(request, target)
    _touch(target)
    return target


def known(model: str, options: PackOptions) -> Path | None:
    """The pack that `prepare` would find in the cache; None where it would have to make one."""
    return _look_up(_requests() / f"{_request_key(model, _local_path(model), options)}.json")


def open_any(model: str, *, offline: bool = False, progress: Progress = silent) -> Source:
    """Open a source of any kind, a packed folder included: what `convert` reads.

    Args:
        model: as for `prepare`.
        offline: use only what is on this machine.
        progress: told of downloads.

    Raises:
        SourceError, ConfigError, FormatError: it cannot be found or read.
    """
    path = _local_path(model)
    if is_packed(path):
        from converters.sources.packed import PackedSource

        return PackedSource(path)
    from converters.sources import open_source

    return open_source(model, offline=offline, progress=progress)


def entries() -> list[Entry]:
    """All packs in the cache, by name."""
    found = [entry for path in _folders(_packs()) if (entry := _entry(path)) is not None]
    return sorted(found, key=lambda entry: (entry.name, entry.key))


def clear(name: str | None = None) -> list[Entry]:
    """Remove packs from the cache, and what killed runs left there.

    Args:
        name: the name or the beginning of the key of an entry; None: all of them.

    Returns:
        The entries that were removed.

    Raises:
        OptionError: no entry has that name.
        FormatError: a folder cannot be removed.
    """
    everything = entries()
    chosen = [
        entry
        for entry in everything
        if name is None or entry.name == name or (len(name) >= 6 and entry.key.startswith(name))
    ]
    if name is not None and not chosen:
        names = ", ".join(sorted({entry.name for entry in everything})) or "nothing"
        raise OptionError(f"The cache holds no {name!r}; it holds {names}.")
    for entry in chosen:
        _remove(entry.path)
    for path in _folders(_packs()):
        if is_stale(path) or (name is None and _is_key(path.name) and not is_packed(path)):
            _remove(path)
    _forget({entry.key for entry in chosen}, everything=name is None)
    return chosen


def _local_path(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # ~name of a user that does not exist
        return Path(model)


def _packs() -> Path:
    return cache_root() / "packed"


def _requests() -> Path:
    return cache_root() / "requests"


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _is_key(name: str) -> bool:
    return len(name) == _KEY_LENGTH and not set(name) - set("0123456789abcdef")


def _request_key(model: str, path: Path, options: PackOptions) -> str:
    """A key of what the user asked for; for local files it changes when one of them does."""
    stamps = _stamps(path)
    named = str(path.absolute()) if stamps else model
    return _digest(named, stamps, asdict(options), FORMAT_VERSION)


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """(name, size, mtime_ns) of a file, or of all files of a folder; empty for a hub id."""
    try:
        paths = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [(item.name, item.stat()) for item in paths if item.is_file()]
    except (OSError, ValueError):  # unreadable, or no name that a file could have
        return []
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _look_up(request: Path) -> Path | None:
    """The pack that a request led to last time, if both are still whole."""
    try:
        with request.open("rb") as file:
            content = json.loads(file.read(_MAX_REQUEST_BYTES))
        key = content["key"]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return None
    if not isinstance(key, str) or not _is_key(key):
        return None
    target = _packs() / key
    if not _is_complete(target):
        return None
    _touch(target)
    return target


def _remember(request: Path, target: Path) -> None:
    """Best effort: without the file the next start only looks longer."""
    with contextlib.suppress(OSError):
        request.parent.mkdir(parents=True, exist_ok=True)
        temporary = request.with_name(f".{request.name}.{secrets.token_hex(4)}")
        temporary.write_text(json.dumps({"key": target.name}), encoding="utf-8")
        temporary.replace(request)


def _forget(keys: set[str], *, everything: bool) -> None:
    if not _requests().is_dir():
        return
    for request in _requests().iterdir():
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


def _touch(target: Path) -> None:
    # A read-only cache can be used; it only does not know when.
    with contextlib.suppress(OSError):
        os.utime(target / MANIFEST)


def _is_complete(target: Path) -> bool:
    """Whether all files are there in full size; their content `verify` looks at."""
    try:
        read_manifest(target)
    except (FormatError, OSError):
        return False
    return True


def _pack(source: Source, target: Path, options: PackOptions, progress: Progress) -> None:
    from converters.pack import convert

    if target.exists():
        _remove(target)  # damaged, and only ours can have this name
    try:
        convert(source, target, options, progress=progress)
    except FormatError as error:
        # Another process may have been quicker with the same pack; its folder is as good.
        if not _is_complete(target):
            raise FormatError(
                f"{error} {CACHE_VARIABLE} names another place for the cache."
            ) from error


def _describe(options: PackOptions) -> str:
    numbers = options.dtype or "integers as they are, floats as int8"
    group = f", group {options.group}" if options.group else ""
    return f"{numbers}{group}, layout {options.layout}"


def _folders(parent: Path) -> Iterator[Path]:
    """The real folders in `parent`; links could lead out of the cache."""
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


def _remove(path: Path) -> None:
    """Remove a folder of the cache; hidden first, so that a killed removal leaves no half pack."""
    hidden = path
    with one_sentence(path):
        if not path.name.startswith("."):
            hidden = path.with_name(partial_name(path.name))
            path.rename(hidden)
        shutil.rmtree(hidden)
