"""Source: a text that arrives in pieces, and generators that read marks and values off it.

Each generator yields where it needs more text, so a grammar is written as if the whole text were
there. What it decides never depends on where the text was cut.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

Found = TypeVar("Found")
Reading = Generator[None, None, Found]  # yields for more text, returns what was found

_OUTSIDE = re.compile(r'["{}\[\]]')  # what matters outside of a JSON string
_INSIDE = re.compile(r'["\\]')  # and inside
_BLANK = re.compile(r"\s*")
_WORD = re.compile(r"[A-Za-z0-9_.-]*")


@dataclass
class Source:
    """A text so far, and how far it is read."""

    text: str = ""
    at: int = 0
    ended: bool = False  # no more will come

    def drop(self) -> None:
        """Forget what is read."""
        self.text, self.at = self.text[self.at :], 0


def take(source: Source, mark: str) -> Reading[bool]:
    """Read a mark if it comes next; whether it did."""
    while True:
        here = source.text[source.at : source.at + len(mark)]
        if here == mark:
            source.at += len(mark)
            return True
        if source.ended or not mark.startswith(here):
            return False
        yield


def skip_blanks(source: Source) -> Reading[None]:
    """Read all white space that comes next."""
    yield from _match(source, _BLANK)


def word(source: Source) -> Reading[str]:
    """Read letters, digits, and what else stands in names of tools; may be ""."""
    return (yield from _match(source, _WORD))


def until(source: Source, mark: str) -> Reading[str | None]:
    """Read up to a mark and the mark; the text before it, or None if it never comes."""
    start = seen = source.at
    while (end := source.text.find(mark, seen)) < 0:
        if source.ended:
            return None
        seen = max(start, len(source.text) - len(mark) + 1)
        yield
    source.at = end + len(mark)
    return source.text[start:end]


def json_text(source: Source) -> Reading[str | None]:
    """Read an object or a list; its text, or None if none begins here or it has no end."""
    while source.at >= len(source.text):
        if source.ended:
            return None
        yield
    start = at = source.at
    if source.text[start] not in "{[":
        return None
    depth, quoted = 0, False
    while True:
        found = (_INSIDE if quoted else _OUTSIDE).search(source.text, at)
        if found is None or (found[0] == "\\" and found.end() == len(source.text)):
            if source.ended:
                return None
            at = len(source.text) if found is None else found.start()
            yield
            continue
        at = found.end()
        if found[0] == '"':
            quoted = not quoted
        elif found[0] == "\\":
            at += 1
        else:
            depth += 1 if found[0] in "{[" else -1
            if not depth:
                source.at = at
                return source.text[start:at]


def _match(source: Source, pattern: re.Pattern[str]) -> Reading[str]:
    start = source.at
    while True:
        found = pattern.match(source.text, source.at)
        assert found is not None, "a pattern that matches nothing at all"
        source.at = found.end()
        if source.ended or source.at < len(source.text):
            return source.text[start : source.at]
        yield
