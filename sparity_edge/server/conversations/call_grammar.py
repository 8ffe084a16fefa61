"""The grammar of answers that have to call a tool: reasoning, of models that reason, then calls."""

from __future__ import annotations

from sparity_edge.generation.constraint.grammars import STYLE
from sparity_edge.server.conversations.offer import Offer
from sparity_edge.text.reasoning import Tags
from sparity_edge.text.reasoning import lark as reasoning_lark
from sparity_edge.text.tokenizer import Tokenizer
from sparity_edge.text.tool_calls.frame import quoted
from sparity_edge.text.tool_calls.syntaxes import Syntax


def call_grammar(
    tokenizer: Tokenizer, syntax: Syntax, offer: Offer, tags: Tags | None, prompt: str
) -> str:
    """A grammar for llguidance, in Lark.

    Args:
        tokenizer: tells which marks are tokens.
        syntax: of the model's calls.
        offer: of tools; a tool that is named is called once.
        tags: around reasoning; None: there is none.
        prompt: its end.
    """
    mark = tokenizer.added_token_id
    calls = "calls" if offer.name is None and offer.parallel else "call"
    lines = [syntax.frame.lark(offer.callable, mark, {**STYLE, "lenient": False})]
    if tags is None:
        return "\n".join([f"start: {calls}", *lines])
    reasoning = reasoning_lark(tags, prompt, lambda text: quoted(text, mark))
    return "\n".join([f"start: reasoning {calls}", reasoning, *lines])
