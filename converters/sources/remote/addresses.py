"""What a model argument that is no file names: a web address of the Hub, or a slip of the pen.

People paste the address of a model's page, or write an alias or a hub id almost right. Knows the
network as little as the aliases, which it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from sparity_edge.errors import SourceError
from sparity_edge.packed.shards import shown
from sparity_edge.spelling import did_you_mean

LONG_NAME = 200  # characters of a name that a message repeats as it stands
_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*://|(?:www\.)?(?:huggingface\.co|hf\.co)/)", re.I)
_HUB = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)(?:models/)?", re.I
)
# Pages of the Hub that are no models, and what is below a model's own page.
_OTHER = ("datasets", "spaces", "collections", "papers", "docs", "blog", "buckets")
_PAGES = ("tree", "blob", "resolve", "raw", "commit")


def hub_id(model: str) -> str:
    """The hub id in a web address of the Hub, with the GGUF file where it is that of one.

    Anything that is no address stays as it is.

    Args:
        model: what the user named.

    Raises:
        SourceError: it is an address that names no model of the Hub.
    """
    name = model.strip()
    if not _ADDRESS.match(name):
        return model
    hub = _HUB.match(name)
    path = re.split(r"[?#]", name[hub.end() :])[0] if hub else ""
    parts = [part for part in path.split("/") if part]
    if len(parts) < 2 or parts[0] in _OTHER:
        raise SourceError(
            f"{_named(model)}: this web address names no model of the Hugging Face Hub; pass its "
            "id (org/name), or download the model and pass the path of its folder or GGUF file."
        )
    repository, page = "/".join(parts[:2]), parts[2:3]
    if not page or page[0] not in _PAGES:
        return repository
    rest = unquote("/".join(parts[3:])).split("/")
    count = 3 if rest[0] == "refs" else 1  # refs/pr/N has slashes of its own
    revision, file = "/".join(rest[:count]), "/".join(rest[count:])
    named = repository if revision in ("", "main") else f"{repository}@{revision}"
    return f"{named}:{file}" if file.lower().endswith(".gguf") else named


def unknown(model: str, aliases: Iterable[str]) -> SourceError:
    """The error for a name that is no file, no alias and no hub id."""
    aliases = tuple(aliases)
    return SourceError(
        f"{_named(model)}: there is no such file or folder, and it is neither an alias "
        f"({', '.join(aliases)}) nor a hub id of the form org/name or org/name:TAG; check "
        "the spelling." + (did_you_mean(model, aliases) if len(model) < LONG_NAME else "")
    )


def _named(model: str) -> str:
    return model if model.strip() and len(model) < LONG_NAME else shown(model)
