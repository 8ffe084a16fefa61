"""CallParser: text of an answer that arrives in pieces, into text and tool calls.

A call is told when it is complete, and not before: only then is it known to be one. What begins
like a call and is none stays text, so nothing is lost but white space around calls. How the text
is cut into pieces makes no difference.
"""

from __future__ import annotations

from collections.abc import Generator

from sparity_edge.text.tool_calls.call import ToolCall
from sparity_edge.text.tool_calls.source import Reading, Source, skip_blanks
from sparity_edge.text.tool_calls.syntaxes import Reader, Syntax, Tools

# Each beginning of a call that is none may have all text behind it read in vain: after so many
# characters no more calls are looked for.
MOST_IN_VAIN = 1 << 20


class CallParser:
    """Finds the calls in one answer.

    Args:
        syntax: that the model writes.
        tools: names of the tools that are offered -> names of their parameters, in order.
    """

    def __init__(self, syntax: Syntax, tools: Tools) -> None:
        self._syntax, self._tools = syntax, tools
        self._source = Source()
        self._found: list[str | ToolCall] = []
        self._blanks = ""  # behind the latest text: they are dropped in front of a call
        self._begun = False  # whether there was any text or call
        self._after_call = False
        self._in_vain = 0  # characters
        self._reading: Generator[None, None, None] | None = self._read()

    def push(self, text: str) -> list[str | ToolCall]:
        """Take the next piece; texts and calls that are certain by now, in order."""
        self._source.text += text
        return self._go_on()

    def flush(self) -> list[str | ToolCall]:
        """What is left, for when no more text comes."""
        self._source.ended = True
        found = self._go_on()
        if self._blanks and not self._after_call:
            found.append(self._blanks)
            self._blanks = ""
        return found

    def _go_on(self) -> list[str | ToolCall]:
        if self._reading is not None:
            try:
                next(self._reading)
            except StopIteration:
                self._reading = None
        found, self._found = self._found, []
        return found

    def _read(self) -> Reading[None]:
        source = self._source
        while True:
            if not self._begun and self._syntax.first is not None:
                yield from skip_blanks(source)
                if source.text.startswith("{", source.at):
                    yield from self._try(self._syntax.first, 0, source.at + 1)
            reader, start = yield from self._until_mark()
            if reader is None:
                return
            yield from self._try(reader, start, source.at)

    def _try(self, reader: Reader, start: int, behind: int) -> Reading[None]:
        """Read a call; of what is none, the text from `start` to `behind` is shown."""
        source = self._source
        calls = yield from reader(source, self._tools)
        if calls:
            self._found += calls
            self._begun = self._after_call = True
            self._blanks = ""
        else:
            self._in_vain += (len(source.text) if source.ended else source.at) - start
            source.at = behind
            self._show(source.text[start:behind])
        source.drop()

    def _until_mark(self) -> Reading[tuple[Reader | None, int]]:
        """Show text up to a mark and read the mark; its reader (None: the end) and its place."""
        source, readers = self._source, self._syntax.readers
        while True:
            places = [(at, mark) for mark in readers if (at := source.text.find(mark)) >= 0]
            if places and self._in_vain < MOST_IN_VAIN:
                start, mark = min(places)
                self._show(source.text[:start])
                source.at = start + len(mark)
                return readers[mark], start
            held = 0 if source.ended else max(_begun(source.text, mark) for mark in readers)
            source.at = len(source.text) - held
            self._show(source.text[: source.at])
            source.drop()
            if source.ended:
                return None, 0
            yield

    def _show(self, text: str) -> None:
        text = self._blanks + text
        if self._after_call:
            text = text.lstrip()
        shown = text.rstrip()
        self._blanks = text[len(shown) :]
        if shown:
            self._found.append(shown)
            self._begun, self._after_call = True, False


def _begun(text: str, mark: str) -> int:
    """Length of the longest end of a text that may become the mark."""
    most = min(len(text), len(mark) - 1)
    return next((n for n in range(most, 0, -1) if mark.startswith(text[-n:])), 0)
