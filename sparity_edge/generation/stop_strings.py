"""Stop strings in a text that arrives in pieces.

The text ends in front of the stop string that is complete first; text that may still turn out to
be the start of one is held back. How the text is cut into pieces makes no difference. Nothing
here knows of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence


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
        self.stopped = False

    def push(self, text: str) -> tuple[str, bool]:
        """Take the next piece; return what can be shown by now and whether the text has ended.

        After the end every further piece is swallowed.
        """
        if self.stopped:
            return "", True
        text = self._held + text
        ends = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            self._held = ""
            return text[: min(ends)[1]], True
        safe = len(text) - self._undecided(text)
        self._held = text[safe:]
        return text[:safe], False

    def flush(self) -> str:
        """What was held back, for when the text has ended otherwise."""
        held, self._held = self._held, ""
        return held

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that is the beginning of a stop string."""
        most = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(most, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0
