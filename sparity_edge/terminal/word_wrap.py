"""Text that arrives in pieces, wrapped at words at the width of a terminal.

A word is shown when it is complete, so that none is cut at the edge; one that is wider than a line
is cut there. Wide characters (Chinese, Japanese, Korean) are words by themselves. Knows nothing of
where the text goes.
"""

from __future__ import annotations

TAB = 8  # columns


class WordWrap:
    """Wraps one text.

    The column is that of the last character that was given out; whoever writes something else in
    between makes a new wrapper.
    """

    def __init__(self) -> None:
        self._column = 0
        self._blank = ""  # between the last word that was given out and the next
        self._word = ""

    def push(self, text: str, width: int) -> str:
        """What can be shown by now.

        Args:
            text: the next piece.
            width: of a line, in columns.
        """
        return "".join(self._push(character, max(width, 2)) for character in text)

    def flush(self, width: int) -> str:
        """What was held back, for when the text has ended."""
        return self._end_word(max(width, 2)) + self._take_blank()

    def _push(self, character: str, width: int) -> str:
        if character == "\n":
            shown = self._end_word(width) + "\n"
            self._column, self._blank = 0, ""
            return shown
        if character in " \t":
            shown = self._end_word(width)
            self._blank += character
            return shown
        if _columns(character) > 1:
            shown = self._end_word(width)
            self._word = character
            return shown + self._end_word(width)
        self._word += character
        # A word of a whole line is shown before its end: it will be cut anyway.
        return self._end_word(width) if _columns(self._word) >= width else ""

    def _end_word(self, width: int) -> str:
        """Give out the blank and the word, on a new line where they do not fit."""
        word, self._word = self._word, ""
        if not word:
            return ""
        if self._column + _columns(self._blank) + _columns(word) <= width:
            shown = self._take_blank() + word
        else:
            self._blank, self._column = "", 0
            shown = "\n" + word
        self._column += _columns(word)
        return shown

    def _take_blank(self) -> str:
        blank, self._blank = self._blank, ""
        self._column += _columns(blank)
        return blank


def _columns(text: str) -> int:
    """Columns that a text takes on a terminal; a tab counts as the most it may take."""
    if text.isascii():
        return len(text) + (TAB - 1) * text.count("\t")
    from rich.cells import cell_len

    return cell_len(text)
