"""Reasoning at the beginning of an answer, between tags that the model's chat template has.

`ReasoningSplitter` tells it apart from the answer while text arrives in pieces. Where the template
has opened the tag in the prompt already, the answer begins inside of it. Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

Kind = Literal["reasoning", "mark", "answer"]
EDGE = "\r\n"  # dropped around reasoning; blanks may be the indentation of an answer


class Tags(NamedTuple):
    """What stands around reasoning."""

    opening: str
    closing: str


KNOWN = (Tags("<think>", "</think>"), Tags("[THINK]", "[/THINK]"))


def tags_of(template: str) -> Tags | None:
    """The tags that a chat template speaks of; None: its model does not reason between tags."""
    return next((tags for tags in KNOWN if tags.opening in template), None)


def opened(tags: Tags, prompt: str) -> bool:
    """Whether a prompt ends within reasoning.

    Args:
        tags: around the reasoning.
        prompt: its end.
    """
    return prompt.rstrip().endswith(tags.opening)


def lark(tags: Tags, prompt: str, mark: Callable[[str], str]) -> str:
    """A rule of a grammar for llguidance, `reasoning`: what stands in front of the answer.

    Args:
        tags: around the reasoning.
        prompt: its end; reasoning that it has opened has to be closed.
        mark: gives a tag as the grammar has it, as a token (`<[1]>`) or in quotes.
    """
    opening, closing = map(mark, tags)
    if closing.startswith("<"):
        text = f"reasoned: /(?s:.*)/ {closing}"
    else:
        text = f"reasoned[suffix={closing}]: /(?s:.*)/"
    if opened(tags, prompt):
        start = "reasoned ends"
    elif prompt.rstrip().endswith(tags.closing):
        start = '""'
    else:
        start = f"({opening} reasoned ends)?"
    return f"reasoning: {start}\n{text}\nends: /\\n*/"


class ReasoningSplitter:
    """Cuts one answer into reasoning, marks (tags and line ends beside them) and the answer.

    All parts together are the text as it came. How it is cut into pieces makes no difference.

    Args:
        tags: around the reasoning.
        prompt: the end of the prompt; where it ends with the opening tag, reasoning has begun.
    """

    def __init__(self, tags: Tags, prompt: str = "") -> None:
        self._tags = tags
        self._text = ""
        self._state = "blanks" if opened(tags, prompt) else "start"

    def push(self, text: str) -> list[tuple[Kind, str]]:
        """Take the next piece; the parts that are certain by now, in order."""
        return self._go_on(text, ended=False)

    def flush(self) -> list[tuple[Kind, str]]:
        """What was held back, for when no more text comes."""
        return self._go_on("", ended=True)

    def _go_on(self, text: str, *, ended: bool) -> list[tuple[Kind, str]]:
        self._text += text
        found: list[tuple[Kind, str]] = []
        before = None
        while before != self._state:  # each turn either changes the state or waits for more
            before = self._state
            kind, count = getattr(self, f"_{before}")(ended)
            if count:
                found.append((kind, self._text[:count]))
                self._text = self._text[count:]
        return found

    def _start(self, ended: bool) -> tuple[Kind, int]:
        opening, bare = self._tags.opening, self._text.lstrip()
        if bare.startswith(opening):
            self._state = "blanks"
            return "mark", len(self._text) - len(bare) + len(opening)
        if ended or not opening.startswith(bare):
            self._state = "answer"
        return "answer", 0

    def _blanks(self, ended: bool) -> tuple[Kind, int]:
        """Line ends between the opening tag and the reasoning."""
        count = len(self._text) - len(self._text.lstrip(EDGE))
        if count < len(self._text) or ended:
            self._state = "inside"
        return "mark", count

    def _inside(self, ended: bool) -> tuple[Kind, int]:
        closing = self._tags.closing
        end = self._text.find(closing)
        if end < 0 and ended:
            return "reasoning", len(self._text)
        if end < 0:
            most = min(len(closing) - 1, len(self._text))
            held = next((n for n in range(most, 0, -1) if closing.startswith(self._text[-n:])), 0)
            end = len(self._text) - held
        else:
            self._state = "closing"
        return "reasoning", len(self._text[:end].rstrip(EDGE))

    def _closing(self, _: bool) -> tuple[Kind, int]:
        self._state = "behind"
        return "mark", self._text.index(self._tags.closing) + len(self._tags.closing)

    def _behind(self, ended: bool) -> tuple[Kind, int]:
        """Line ends between the closing tag and the answer."""
        count = len(self._text) - len(self._text.lstrip(EDGE))
        if count < len(self._text) or ended:
            self._state = "answer"
        return "mark", count

    def _answer(self, _: bool) -> tuple[Kind, int]:
        return "answer", len(self._text)
