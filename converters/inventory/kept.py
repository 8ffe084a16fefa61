"""Models that are kept: fetched ones and packs of them, by the names under which they are used.

A name stands for what was fetched under it and for the packs of that; a Hub id without a tag stands
for all GGUF files of its repository too. Knows neither the Hub's cache nor the pack cache from the
inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.pack_cache import SHORTEST_KEY, Entry, drop, entries
from converters.sources.remote.addresses import hub_id
from converters.sources.remote.downloads import Download, demand_unused, downloads, remove_download
from converters.sources.remote.hub import ALIASES, is_alias
from converters.sources.remote.hub_name import parse_hub_name
from sparity_edge.errors import OptionError
from sparity_edge.spelling import did_you_mean

DOWNLOAD, PACK = "download", "pack"


@dataclass(frozen=True)
class Kept:
    """One model as it is kept: files that were fetched, or a pack."""

    kind: str  # DOWNLOAD or PACK
    name: str  # what it is used by
    form: str  # number format, and of a pack its layout
    origin: str  # of a pack what it was made of
    nbytes: int
    last_used: float  # seconds since 1970
    path: Path
    key: str | None  # of a pack
    what: Download | Entry


def kept() -> list[Kept]:
    """All models that are kept, by name, what was fetched before its packs."""
    found = [_of_download(each) for each in downloads()] + [_of_pack(each) for each in entries()]
    return sorted(found, key=lambda each: (each.name, each.kind, each.form))


def named(name: str, found: Sequence[Kept], kind: str | None = None) -> list[Kept]:
    """What a name stands for.

    Args:
        name: a name in the list, an alias, the web address of a model, a Hub id without the tag of
            a GGUF file, or the first digits of a pack's key.
        found: what is kept.
        kind: DOWNLOAD or PACK; None: both.

    Raises:
        OptionError: nothing that is kept is called so.
    """
    wanted = {hub_id(name).lower()}
    if is_alias(name) and (behind := ALIASES[name].hub):
        wanted.add(behind.lower())
    chosen = [
        each
        for each in found
        if kind in (None, each.kind)
        and (wanted & _names(each) or (len(name) >= SHORTEST_KEY and _key(each).startswith(name)))
    ]
    if not chosen:
        names = sorted({each.name for each in found})
        listed = "`sparity-edge list` shows what is kept" if names else "nothing is kept"
        raise OptionError(f"{name}: no such model is kept; {listed}." + did_you_mean(name, names))
    return chosen


def remove(chosen: Iterable[Kept]) -> None:
    """Remove models from the caches.

    Raises:
        OptionError: one of them is in use; none is removed then.
        FormatError: a file cannot be removed.
    """
    chosen = list(chosen)
    for each in chosen:
        if isinstance(each.what, Download):
            demand_unused(each.what)
    packs = [each.what for each in chosen if isinstance(each.what, Entry)]
    drop(packs)
    for each in chosen:
        if isinstance(each.what, Download):
            remove_download(each.what)


def _of_download(each: Download) -> Kept:
    return Kept(
        DOWNLOAD, each.name, each.form, each.origin, each.nbytes, each.last_used, each.path, None,
        each,
    )  # fmt: skip


def _of_pack(each: Entry) -> Kept:
    numbers = each.options.get("dtype") or "as in the source"
    parts = [str(numbers), f"group {each.options['group']}" if each.options.get("group") else ""]
    form = ", ".join(filter(None, [*parts, str(each.options.get("layout") or "")]))
    return Kept(
        PACK, each.name, form, "packed here", each.nbytes, each.last_used, each.path, each.key, each
    )


def _key(each: Kept) -> str:
    return each.key or ""


def _names(each: Kept) -> set[str]:
    """All that a model is called, in small letters: also without the tag, and the revision."""
    names = {each.name}
    hub = parse_hub_name(each.name)
    if hub is not None:
        revision = f"@{hub.revision}" if hub.revision else ""
        names |= {hub.repository, hub.repository + revision}
    return {name.lower() for name in names}
