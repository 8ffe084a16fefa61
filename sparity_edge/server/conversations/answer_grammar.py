"""The grammar of an answer: reasoning, of models that reason, then what was asked for, or calls.

What was asked for is a schema, a regex or a grammar, of which its own module makes a grammar; here
it is put behind the reasoning and beside the calls.
"""

from __future__ import annotations

import json
from typing import Any

from sparity_edge.errors import OptionError
from sparity_edge.generation.constraint.grammars import STYLE, grammar_of
from sparity_edge.server.constraints import Wanted
from sparity_edge.server.conversations.offer import Offer
from sparity_edge.text.reasoning import Tags
from sparity_edge.text.reasoning import lark as reasoning_lark
from sparity_edge.text.tokenizer import Tokenizer
from sparity_edge.text.tool_calls.frame import quoted
from sparity_edge.text.tool_calls.syntaxes import Syntax

TEXT = "text: /(?s:.*)/"


def answer_grammar(
    tokenizer: Tokenizer,
    offer: Offer,
    syntax: Syntax | None,
    followed: Wanted | None,
    tags: Tags | None,
    prompt: str,
) -> str | None:
    """A grammar for llguidance; None: the answer is free.

    Args:
        tokenizer: tells which marks are tokens.
        offer: of tools; a tool that is named is called once.
        syntax: of the model's calls; None: there are none to make.
        followed: what an answer without calls must follow; None: nothing.
        tags: around reasoning; None: there is none.
        prompt: its end.

    Raises:
        OptionError: what has to be followed cannot be.
    """
    mark = tokenizer.added_token_id
    rules, found = [], None
    if syntax is not None:
        if offer.choice == "required":
            followed, found = None, offer.calls
        elif followed is not None:
            found = f"(@answer | {offer.calls})"
        elif offer.strict and mark(syntax.frame.opening) is not None:
            # Text holds no mark that is a token: where there is one, a call begins.
            found, rules = f"text {offer.calls}?", [TEXT]
    elif followed is not None and tags is not None:
        found = "@answer"
    if found is None:
        return None
    if syntax is not None:
        rules.append(syntax.frame.lark(offer.callable, mark, {**STYLE, "lenient": False}))
    if tags is not None:
        found = f"reasoning {found}"
        rules.append(reasoning_lark(tags, prompt, lambda text: quoted(text, mark)))
    lark = "\n".join([f"start: {found}", *rules])
    return lark if followed is None else _beside(lark, followed)


def _beside(lark: str, followed: Wanted) -> str:
    """A grammar in Lark, and beside it the one that it calls @answer."""
    text = grammar_of(followed.kind, followed.content, followed.field)
    grammars: Any = [{"lark_grammar": text}]
    if text.lstrip().startswith("{"):
        grammars = json.loads(text).get("grammars")
    if not isinstance(grammars, list) or len(grammars) != 1 or not isinstance(grammars[0], dict):
        raise OptionError(
            f"{followed.field} has to be one grammar beside tools or reasoning; write it in Lark."
        )
    answer = {**grammars[0], "name": "answer"}
    return json.dumps({"grammars": [{"lark_grammar": lark}, answer]})
