"""From the name of a model to its packed folder: what is not in the pack cache is packed once.

A pack is keyed by the content of its source, the options and the format version. Small request
files lead from what the user names (a hub id, or a local path with size and time of each file) to
that key, so that a second start touches neither the network nor the source.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.adapters.names import adapters_of, own_name
from converters.pack_cache import is_complete, look_up, packs, remember, remove, requests, touch
from sparity_edge.errors import FormatError
from sparity_edge.packed.manifest import is_packed
from sparity_edge.packed.shards import FORMAT_VERSION
from sparity_edge.progress import QUIET, CallContext
from sparity_edge.system.folders import CACHE_VARIABLE
from sparity_edge.system.split_files import parts_beside

if TYPE_CHECKING:
    from converters.pack_options import PackOptions
    from converters.sources.source import Source

# Raised whenever sources read other things out of the same files: older packs are wrong then.
READING = 2


def prepare(model: str, options: PackOptions, context: CallContext = QUIET) -> Path:
    """The packed folder of a model, packing it into the pack cache where that has not been done.

    Args:
        model: a packed folder, a Hugging Face folder, a GGUF file, a hub id or an alias; or one
            of these with LoRA adapters (`converters.adapters.names`).
        options: number format and layout. A packed folder that is named must agree with them.
        context: what may be done to find the model, and whom it is told.

    Raises:
        OptionError: a packed folder was named and holds other numbers than asked for.
        SourceError, ConfigError, FormatError: the model cannot be found, read or packed.
    """
    return (
        named_pack(model, options)
        or pulled_pack(model, options, context)
        or cached_pack(model, options, context)
    )


def named_pack(model: str, options: PackOptions) -> Path | None:
    """The packed folder that `model` names; None where it names something else.

    Raises:
        OptionError: it holds other numbers than asked for.
        FormatError, ConfigError: it is damaged.
    """
    path = packed_path(model)
    if path is not None:
        from converters.options_check import refuse_mismatch

        refuse_mismatch(path, options)
    return path


def packed_path(model: str) -> Path | None:
    """Where the packed folder is that `model` names; None where it names something else.

    That of a hub id is where it was fetched to; None where it was not fetched yet.
    """
    path = _local_path(model)
    if is_packed(path):
        return path
    if not _may_be_hub_id(model, path):
        return None
    from converters.sources.remote.packed_on_hub import packed_in_cache

    return packed_in_cache(model)


def _may_be_hub_id(model: str, path: Path) -> bool:
    """Whether a name can be one of the Hub: what exists here wins, and adapters go to a source."""
    return "/" in model and not adapters_of(model) and not os.path.lexists(path)


def pulled_pack(model: str, options: PackOptions, context: CallContext = QUIET) -> Path | None:
    """The packed folder on the Hub that `model` names, fetched; None where it names something else.

    Args:
        model: what is not on this machine, so that the Hub is asked.
        options: as for `named_pack`.
        context: what may be done to find the model, and whom it is told.

    Raises:
        OptionError: it holds other numbers than asked for.
        SourceError, FormatError, ConfigError: it cannot be fetched or is damaged.
    """
    if context.offline or not _may_be_hub_id(model, _local_path(model)) or known(model, options):
        return None
    from converters.sources.remote.packed_on_hub import is_packed_on_hub

    if not is_packed_on_hub(model):
        return None
    open_any(model, context).close()
    return named_pack(model, options)


def cached_pack(model: str, options: PackOptions, context: CallContext = QUIET) -> Path:
    """The pack of a model in the pack cache, made where it is missing.

    Args:
        model: as for `prepare`; a packed folder is stored in the layout of the options.
        options: number format and layout.
        context: what may be done to find the model, and whom it is told.

    Raises:
        SourceError, ConfigError, FormatError: the model cannot be found, read or packed.
    """
    request = requests() / f"{_request_key(model, _local_path(model), options)}.json"
    known = look_up(request)
    if known is not None:
        return known
    with open_any(model, context) as source:
        options = options.for_model(source.config)
        target = packs() / _digest(source.fingerprint(), asdict(options), FORMAT_VERSION, READING)
        if not is_complete(target):
            context.notify(
                f"Packing {model} into the pack cache, once ({_describe(options)}): {target}"
            )
            _pack(source, target, options, context)
    remember(request, target)
    touch(target)
    return target


def known(model: str, options: PackOptions) -> Path | None:
    """The pack that `prepare` would find in the pack cache; None where it would make one."""
    return look_up(requests() / f"{_request_key(model, _local_path(model), options)}.json")


def open_any(model: str, context: CallContext = QUIET) -> Source:
    """Open a source of any kind, a packed folder included: what `convert` reads.

    Args:
        model: as for `prepare`.
        context: what may be done to find the model, and whom it is told.

    Raises:
        SourceError, ConfigError, FormatError: it cannot be found or read.
    """
    adapters = adapters_of(model)
    if adapters:
        from converters.adapters.apply import adapted

        return adapted(open_any(own_name(model), context), adapters, model, context)
    path = packed_path(model)
    if path is not None:
        from converters.sources.packed import PackedSource

        return PackedSource(path, None if path == _local_path(model) else model)
    from converters.sources import open_source

    return open_source(model, context)


def _local_path(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # ~name of a user that does not exist
        return Path(model)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _request_key(model: str, path: Path, options: PackOptions) -> str:
    """A key of what the user asked for; for local files it changes when one of them does."""
    adapters = [
        (str(each.folder.absolute()), _stamps(each.folder), each.scale)
        for each in adapters_of(model)
    ]
    if adapters:
        model, path = own_name(model), _local_path(own_name(model))
    stamps = _stamps(path)
    named = str(path.absolute()) if stamps else model
    return _digest(named, stamps, asdict(options), FORMAT_VERSION, READING, *adapters)


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """(name, size, mtime_ns) of a file, or of all of a folder or split model; none: a hub id."""
    try:
        paths = sorted(path.iterdir()) if path.is_dir() else parts_beside(path)
        stats = [(item.name, item.stat()) for item in paths if item.is_file()]
    except (OSError, ValueError):  # unreadable, or no name that a file could have
        return []
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _pack(source: Source, target: Path, options: PackOptions, context: CallContext) -> None:
    from converters.pack import convert

    if target.exists():
        remove(target)  # damaged, and only ours can have this name
    try:
        convert(source, target, options, progress=context.progress, notify=context.notify)
    except FormatError as error:
        # Another process may have been quicker with the same pack; its folder is as good.
        if not is_complete(target):
            raise FormatError(
                f"{error} {CACHE_VARIABLE} names another place for the pack cache."
            ) from error


def _describe(options: PackOptions) -> str:
    numbers = options.dtype or "integers as they are, floats as int8"
    group = f", group {options.group}" if options.group else ""
    return f"{numbers}{group}, layout {options.layout}"
