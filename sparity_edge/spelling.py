"""Did you mean: the known name that a misspelled one is nearest to.

Commands, options, settings and plans ask here, so that every mistake is answered alike. Knows
nothing of what is named.
"""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like `word`, whatever the case of letters; None where none is near.

    Args:
        word: what was typed.
        known: the names that there are.
    """
    import difflib

    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), names, 1)
    return names[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence behind a blank that names what is nearest; empty where nothing is near."""
    name = nearest(word, known)
    return "" if name is None else f" Did you mean {name}?"
