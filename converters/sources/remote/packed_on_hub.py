"""Packed folders on the Hub: a hub id may name one, and then it is used where it was fetched to.

Light to import, since every start asks whether it has been fetched already. Knows neither what a
packed folder holds nor how it is fetched.
"""

from __future__ import annotations

from pathlib import Path

from converters.sources.remote.addresses import hub_id
from converters.sources.remote.hub_client import cached_folder, look_up
from converters.sources.remote.hub_name import HubName, parse_hub_name
from sparity_edge.packed.manifest import MANIFEST, is_packed


def packed_in_cache(model: str) -> Path | None:
    """The packed folder that a hub id names, where it was fetched to; None: none was fetched.

    Args:
        model: what the user named, and no file or folder here.

    Raises:
        SourceError: it is a web address that names no model of the Hub.
    """
    name = _named(model)
    folder = cached_folder(name.repository, name.revision) if name else None
    return folder if folder is not None and is_packed(folder) else None


def is_packed_on_hub(model: str) -> bool:
    """Whether a hub id names a packed folder; asks the Hub, and fetches nothing.

    Args:
        model: what the user named, and no file or folder here.

    Raises:
        SourceError: there is no such model, or no permission.
    """
    name = _named(model)
    info = look_up(name.repository, name.revision, model) if name else None
    return info is not None and MANIFEST in {each.rfilename for each in info.siblings or ()}


def _named(model: str) -> HubName | None:
    """The parts of a hub id that may name a packed folder: with a tag it names a GGUF file."""
    name = parse_hub_name(hub_id(model)) if "/" in model else None
    return None if name is None or name.tag is not None else name
