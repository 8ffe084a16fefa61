"""Stop strings in a text that arrives in pieces.

The text ends in front of the stop string that is complete first; text that may still turn out to
be the start of one is held back. How the text is cut into pieces makes no difference. Some text is
hidden (special tokens): it is never shown, and a stop string may be found with it or without it.
Nothing here knows of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class StopStrings:
    """Looks for stop strings in a stream of text.

    Args:
        stop: non-empty strings; of several the one that is complete first ends the text, and of
            those complete at the same character the longest.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        assert all(stop), "an empty stop string"
        self._stop = tuple(stop)
        self._held = ""
        self._marks: list[bool] = []  # of each held character, whether it is to be shown
        self.found: str | None = None  # the stop string that has ended the text

    def push(self, text: str, hidden: str = "") -> tuple[str, bool]:
        """Take the next piece; return what can be shown by now and whether the text has ended.

        After the end every further piece is swallowed.

        Args:
            text: to be shown.
            hidden: text behind it that is not to be shown.
        """
        if self.found is not None:
            return "", True
        self._held += text + hidden
        self._marks += [True] * len(text) + [False] * len(hidden)
        ends = list(self._ends())
        if ends:
            _, start, self.found = min(ends)
            shown = self._take(start)
            self._take(len(self._held))
            return shown, True
        return self._take(self._decided()), False

    def flush(self) -> str:
        """What was held back, for when the text has ended otherwise."""
        return self._take(len(self._held))

    def _views(self) -> Iterator[tuple[str, Sequence[int]]]:
        """The held text whole and without what is hidden, each with its characters' positions."""
        yield self._held, range(len(self._held))
        if not all(self._marks):
            at = [position for position, shown in enumerate(self._marks) if shown]
            yield "".join(self._held[position] for position in at), at

    def _ends(self) -> Iterator[tuple[int, int, str]]:
        """Where a stop string ends, where it begins, and itself, of every one that is complete."""
        for text, at in self._views():
            for stop in self._stop:
                if (start := text.find(stop)) >= 0:
                    yield at[start + len(stop) - 1] + 1, at[start], stop

    def _decided(self) -> int:
        """How many of the held characters cannot be the beginning of a stop string."""
        decided = len(self._held)
        for text, at in self._views():
            if length := self._undecided(text):
                decided = min(decided, at[len(text) - length])
        return decided

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that is the beginning of a stop string."""
        most = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(most, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0

    def _take(self, count: int) -> str:
        """Let go of the first held characters; returns those of them that are to be shown."""
        pairs = zip(self._held[:count], self._marks[:count], strict=True)
        shown = "".join(character for character, visible in pairs if visible)
        self._held, self._marks = self._held[count:], self._marks[count:]
        return shown
