"""The name of a model on the Hub in its parts: `org/name`, `@revision` and `:TAG`.

The tag names one of several GGUF files in a repository, by number format or by file, as llama.cpp
and ollama users type it. Knows neither the Hub nor files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(@(?P<revision>[A-Za-z0-9][\w./-]*))?(:(?P<tag>[A-Za-z0-9][\w.+/ ()\[\],-]*))?",
    re.ASCII,
)


@dataclass(frozen=True)
class HubName:
    """A model on the Hub as the user names it."""

    label: str  # all of it
    repository: str
    revision: str | None = None  # None: the main branch
    tag: str | None = None


def parse_hub_name(name: str) -> HubName | None:
    """The parts of `org/name[@revision][:TAG]`; None where a text has not that form.

    Args:
        name: what the user typed.
    """
    match = _NAME.fullmatch(name)
    if match is None or ".." in re.split("[/:@]", name):
        return None
    return HubName(name, match["repository"], match["revision"], match["tag"])
