"""A conversation with tools and reasoning: what the model reads, and how its answer is read.

Of any protocol: bodies have been made into turns and tools as OpenAI has them. Knows nothing of
HTTP and nothing of how tokens are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparity_edge.generation.constraint.constraint import Constraint
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.server.constraints import Wanted, made
from sparity_edge.server.conversations.answer_grammar import answer_grammar
from sparity_edge.server.conversations.offer import Offer
from sparity_edge.text.answer_parts import AnswerReader
from sparity_edge.text.reasoning import ReasoningSplitter, Tags, tags_of
from sparity_edge.text.tool_calls.parser import CallParser
from sparity_edge.text.tool_calls.syntaxes import Syntax
from sparity_edge.text.tool_calls.tool_use import VARIABLES

PROMPT_END = 16  # tokens at the end of a prompt, where reasoning may have been opened


@dataclass(frozen=True)
class Conversation:
    """What a model reads, and how its answers are read.

    Args:
        ids: of the prompt.
        shown: special tokens that are part of an answer's text.
        reader: makes a reader for one answer.
        ends: makes what is told each piece of an answer, and says whether that was the last.
        constraint: what answers must follow; None: nothing.
    """

    ids: list[int]
    shown: frozenset[str]
    reader: Callable[[], AnswerReader]
    ends: Callable[[], Callable[[str], bool]] | None
    constraint: Constraint | None


def conversation(
    loaded: LoadedModel,
    turns: Sequence[Mapping[str, Any]],
    template_args: Mapping[str, Any] | None,
    offer: Offer,
    *,
    followed: Wanted | None = None,
    split: bool = False,
) -> Conversation:
    """Prepare a conversation.

    Args:
        loaded: the model.
        turns: as the chat template takes them, but that arguments of calls are objects.
        template_args: the template's own variables.
        offer: of tools.
        followed: what answers must follow that call no tool; reasoning is then told apart.
        split: whether reasoning is told apart from content.

    Raises:
        OptionError: the model's template does not know tools, there is no such tool, or what has
            to be followed cannot be.
        TemplateError: the template refuses the conversation.
    """
    tokenizer = loaded.tokenizer
    offer.check()
    variables, syntax = dict(template_args or {}), None
    if offer.open or any("tool_calls" in turn or turn["role"] == "tool" for turn in turns):
        use = tokenizer.tool_use
        turns = use.prepared(turns)
        if offer.open:
            offered = use.offer(offer.tools)
            # Who says how the template is told of the tools need not have it told twice.
            variables |= {} if variables.keys() & set(VARIABLES) else offered
            syntax = use.demand_syntax()
    ids = loaded.encode(list(turns), variables)
    split = split or followed is not None
    tags = tags_of(tokenizer.chat_template or "") if split or syntax is not None else None
    end = tokenizer.decode(ids[-PROMPT_END:], skip_special_tokens=False)

    def reader() -> AnswerReader:
        return _reader(offer, syntax, tags, end, split=split)

    def ends() -> Callable[[str], bool]:
        own = reader()
        return lambda text: bool(own.push(text).calls)

    marks = frozenset((*(syntax.marks if syntax else ()), *(tags or ())))
    constraint = _constraint(loaded, offer, syntax, followed, tags, end)
    one = syntax is not None and not offer.parallel and constraint is None
    return Conversation(ids, marks, reader, ends if one else None, constraint)


def _constraint(
    loaded: LoadedModel,
    offer: Offer,
    syntax: Syntax | None,
    followed: Wanted | None,
    tags: Tags | None,
    prompt: str,
) -> Constraint | None:
    grammar = answer_grammar(loaded.tokenizer, offer, syntax, followed, tags, prompt)
    if grammar is not None:
        field = followed.field if followed is not None and syntax is None else "tools"
        return loaded.constraints.of("grammar", grammar, field)
    return made(loaded, followed)


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
