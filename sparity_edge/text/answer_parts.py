"""AnswerReader: what an answer consists of, reasoning, content and tool calls, while it arrives.

Calls are looked for behind the reasoning only: a model that considers a call has not made it.
Knows nothing of tokens and nothing of protocols.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparity_edge.text.reasoning import Kind, ReasoningSplitter
from sparity_edge.text.tool_calls.call import ToolCall
from sparity_edge.text.tool_calls.parser import CallParser


@dataclass(frozen=True)
class AnswerPart:
    """A piece of an answer.

    Example:
        >>> AnswerPart(content="Hello").reasoning
        ''
    """

    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()


class AnswerReader:
    """Reads one answer.

    Args:
        splitter: tells reasoning apart; None: there is none.
        parser: finds tool calls; None: there are none to be found.
        split: whether reasoning is told apart from the content, or stays in it with its tags.
        parallel: whether there may be several calls; if not, the first ends the answer.
    """

    def __init__(
        self,
        splitter: ReasoningSplitter | None = None,
        parser: CallParser | None = None,
        *,
        split: bool = True,
        parallel: bool = True,
    ) -> None:
        self._splitter, self._parser, self._split = splitter, parser, split
        self._parallel = parallel
        self._over = False

    def push(self, text: str, *, ended: bool = False) -> AnswerPart:
        """Take the next piece of text.

        Args:
            text: may be empty.
            ended: whether it is the last; what was held back comes with it.
        """
        if self._over:
            return AnswerPart()
        parts: list[tuple[Kind, str]] = [("answer", text)]
        if self._splitter is not None:
            parts = self._splitter.push(text)
            parts += self._splitter.flush() if ended else []
        reasoning = "".join(part for kind, part in parts if kind == "reasoning" and self._split)
        content = "" if self._split else "".join(part for kind, part in parts if kind != "answer")
        rest = "".join(part for kind, part in parts if kind == "answer")
        if self._parser is None:
            return AnswerPart(content + rest, reasoning)
        found = self._parser.push(rest)
        found += self._parser.flush() if ended else []
        first = next((n for n, each in enumerate(found) if isinstance(each, ToolCall)), None)
        if first is not None and not self._parallel:
            found, self._over = found[: first + 1], True
        texts, calls = _sorted(found)
        return AnswerPart(content + texts, reasoning, calls)


def _sorted(found: Iterable[str | ToolCall]) -> tuple[str, tuple[ToolCall, ...]]:
    found = list(found)
    texts = "".join(each for each in found if isinstance(each, str))
    return texts, tuple(each for each in found if isinstance(each, ToolCall))
