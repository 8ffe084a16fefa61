"""DecodeStream: the text of token ids that arrive one by one, as `Tokenizer.stream` gives it.

Knows a tokenizer only as a function from ids to text and a table of what is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

# A UTF-8 character has at most four bytes, so at most three tokens can wait for its end.
MAX_PARTIAL = 3
# A tokenizer that yields nothing but broken characters is decoded in runs of this many tokens.
MAX_PENDING = 32
# Tokens of a context to look at first; of a prompt of any length the end is enough.
LEAST_CONTEXT = 8
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class DecodeStream:
    """Text of ids that arrive one by one; together the pieces equal `Tokenizer.decode` of all.

    Behind a context they are what the text of context and ids has beyond the context's own text:
    SentencePiece decoders drop the first space of a text, and a continuation is no beginning.

    Why not `tokenizers.decoders.DecodeStream`: that one has no way to ask for what it holds back
    at the end, holds back a U+FFFD that the text really contains, and after a skipped special
    token forgets that the text has begun.

    Args:
        decode: text of all of some ids, special tokens included.
        skipped: text of the tokens that are left out, by id.
        context: ids that the arriving ones continue.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        skipped: Mapping[int, str],
        context: Sequence[int] = (),
    ) -> None:
        self._decode = decode
        self._skipped = skipped
        # The tokens of the last piece and those since: a decoder may treat the first token of a
        # text in a way of its own (SentencePiece drops its space), so there is always one before.
        self._window, self._before = self._end_of(context)
        self._shown = len(self._before)  # how many characters of the window's text are shown
        # How many of the window are wholly shown, and the length of their text alone.
        self._context, self._whole = self._whole_part()

    def push(self, token_id: int) -> str:
        """The text that this id adds; "" while a character is incomplete."""
        if token_id in self._skipped:
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        pending = len(self._window) - self._context
        held = 0 if pending > MAX_PENDING else _partial(text)
        if held and pending <= MAX_PARTIAL:
            return ""  # SentencePiece shows a whole run of bytes as broken until it is complete
        self._mend(text)
        piece = text[self._shown : len(text) - held]
        if held:
            self._shown = max(self._shown, len(text) - held)
        elif piece or pending > MAX_PENDING:
            self._settle()
        return piece

    def flush(self) -> str:
        """What is held back, an incomplete character as U+FFFD, for when no more ids come."""
        text = self._decode(self._window)
        self._mend(text)
        piece = text[self._shown :]
        self._window, self._context, self._shown = [], 0, 0
        return piece

    def hidden(self, token_id: int) -> str:
        """The text of a token that is left out; "" for any other token."""
        return self._skipped.get(token_id, "")

    def _settle(self) -> None:
        """Keep only the tokens of the piece just shown, as context for the next."""
        self._window = self._window[self._context :]
        self._context = len(self._window)
        self._shown = len(self._decode(self._window))

    def _end_of(self, context: Sequence[int]) -> tuple[list[int], str]:
        """The last tokens of the context, not beginning within a character, and their text."""
        ids = [token for token in context if token not in self._skipped]
        count = LEAST_CONTEXT
        while True:
            window = ids[-count:]
            text = self._decode(window)
            if count >= len(ids) or (text and not text.startswith(REPLACEMENT)):
                return window, text
            count *= 2

    def _whole_part(self) -> tuple[int, int]:
        """Tokens and characters of the context without a character that its end only begins."""
        for count in range(len(self._window), max(-1, len(self._window) - MAX_PARTIAL - 1), -1):
            text = self._decode(self._window[:count])
            if not _partial(text):
                return count, len(text)
        return len(self._window), len(self._before)

    def _mend(self, text: str) -> None:
        """Begin in front of a character that the context only began, once it is whole."""
        if not text.startswith(self._before):
            self._shown = self._whole
        self._before = ""


def _partial(text: str) -> int:
    """How many U+FFFD at the end may still become a character."""
    tail = text[-MAX_PARTIAL:]
    return len(tail) - len(tail.rstrip(REPLACEMENT))
