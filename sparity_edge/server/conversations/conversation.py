"""A conversation with tools and reasoning: what the model reads, and how its answer is read.

Of any protocol: bodies have been made into turns and tools as OpenAI has them. Knows nothing of
HTTP and nothing of how tokens are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparity_edge.errors import OptionError
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.text.answer_parts import AnswerReader
from sparity_edge.text.reasoning import ReasoningSplitter, Tags, tags_of
from sparity_edge.text.tool_calls.parser import CallParser
from sparity_edge.text.tool_calls.syntaxes import Syntax

PROMPT_END = 16  # tokens at the end of a prompt, where reasoning may have been opened
Tool = Mapping[str, Any]


@dataclass(frozen=True)
class Offer:
    """Tools that the model may call.

    Args:
        tools: as OpenAI has them, {"type": "function", "function": {...}}.
        choice: "none", "auto", "required", or the name of the one that has to be called.
        parallel: whether an answer may hold several calls.
    """

    tools: Sequence[Tool] = ()
    choice: str = "auto"
    parallel: bool = True

    @property
    def open(self) -> bool:
        """Whether there is anything to call."""
        return bool(self.tools) and self.choice != "none"


@dataclass(frozen=True)
class Conversation:
    """What a model reads, and how its answers are read.

    Args:
        ids: of the prompt.
        shown: special tokens that are part of an answer's text.
        reader: makes a reader for one answer.
        ends: makes what is told each piece of an answer, and says whether that was the last.
    """

    ids: list[int]
    shown: frozenset[str]
    reader: Callable[[], AnswerReader]
    ends: Callable[[], Callable[[str], bool]] | None


def conversation(
    loaded: LoadedModel,
    turns: Sequence[Mapping[str, Any]],
    template_args: Mapping[str, Any] | None,
    offer: Offer,
    *,
    split: bool = False,
) -> Conversation:
    """Prepare a conversation.

    Args:
        loaded: the model.
        turns: as the chat template takes them, but that arguments of calls are objects.
        template_args: the template's own variables.
        offer: of tools.
        split: whether reasoning is told apart from content.

    Raises:
        OptionError: the model's template does not know tools, or there is no such tool.
        TemplateError: the template refuses the conversation.
    """
    tokenizer = loaded.tokenizer
    _check(offer)
    variables, syntax = dict(template_args or {}), None
    if offer.open or any("tool_calls" in turn or turn["role"] == "tool" for turn in turns):
        use = tokenizer.tool_use
        turns = use.prepared(turns)
        if offer.open:
            variables |= use.offer(offer.tools)
            syntax = use.demand_syntax()
    ids = loaded.encode(list(turns), variables)
    tags = tags_of(tokenizer.chat_template or "") if split or syntax is not None else None
    end = tokenizer.decode(ids[-PROMPT_END:], skip_special_tokens=False)

    def reader() -> AnswerReader:
        return _reader(offer, syntax, tags, end, split=split)

    def ends() -> Callable[[str], bool]:
        own = reader()
        return lambda text: bool(own.push(text).calls)

    marks = frozenset((*(syntax.marks if syntax else ()), *(tags or ())))
    return Conversation(ids, marks, reader, ends if syntax and not offer.parallel else None)


def _reader(
    offer: Offer, syntax: Syntax | None, tags: Tags | None, prompt: str, *, split: bool
) -> AnswerReader:
    splitter = None if tags is None else ReasoningSplitter(tags, prompt)
    parser = None
    if syntax is not None:
        functions = [each["function"] for each in offer.tools]
        names = {each["name"]: tuple(_parameters(each)) for each in functions}
        parser = CallParser(syntax, names)
    return AnswerReader(splitter, parser, split=split, parallel=offer.parallel)


def _parameters(function: Mapping[str, Any]) -> Sequence[str]:
    properties = (function.get("parameters") or {}).get("properties")
    return tuple(properties) if isinstance(properties, Mapping) else ()


def _check(offer: Offer) -> None:
    names = [each["function"]["name"] for each in offer.tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"tools has two functions of the name {twice!r}; rename one of them.")
    if offer.choice in ("none", "auto"):
        return
    if not names:
        raise OptionError("tool_choice asks for a call, and there are no tools; add some.")
    if offer.choice != "required" and offer.choice not in names:
        raise OptionError(f"tool_choice names {offer.choice!r}, which is not among the tools.")
    raise OptionError("tool_choice is served here as 'none' or 'auto' only; leave it out.")
