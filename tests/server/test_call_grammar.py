"""The grammar of calls that have to be made: what a syntax writes follows it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tokenizer_folders as folders
import tool_templates as templates

from sparity_edge.generation.constraint.constraints import Constraints
from sparity_edge.server.conversations.call_grammar import call_grammar
from sparity_edge.server.conversations.offer import Offer
from sparity_edge.text.reasoning import KNOWN, Tags
from sparity_edge.text.tokenizer import Tokenizer
from sparity_edge.text.tool_calls.call import ToolCall
from sparity_edge.text.tool_calls.syntaxes import HERMES, LLAMA3, MISTRAL, MISTRAL_ARGS, Syntax

pytest.importorskip("llguidance", reason="the extra [server] is not installed")
END = 257  # </s>
ADDED = ("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<think>", "</think>")
TOOLS = [templates.WEATHER, templates.CLOCK]
BERN, CLOCK = ToolCall("weather", '{"city": "Bern", "day": 3}'), ToolCall("clock", "{}")
ANY, ONE = Offer(TOOLS, "required"), Offer(TOOLS, "required", parallel=False)
NAMED = Offer(TOOLS, "required", "clock")
Follows = Callable[..., bool]


@pytest.fixture(scope="module")
def follows(tmp_path_factory: pytest.TempPathFactory) -> Follows:
    """follows(text, syntax, offer, tags, prompt): whether the text is a whole answer."""
    folder = folders.write(tmp_path_factory.mktemp("tokenizer"), "nothing")
    added = {str(folders.BASE + n): folders.token(text) for n, text in enumerate(ADDED)}
    folders.write_config(folder, {"added_tokens_decoder": added})
    tokenizer = Tokenizer.from_folder(folder)
    constraints = Constraints(tokenizer, tokenizer.vocab_size, [END])

    def followed(
        text: str, syntax: Syntax, offer: Offer, tags: Tags | None = None, prompt: str = ""
    ) -> bool:
        grammar = call_grammar(tokenizer, syntax, offer, tags, prompt)
        state = constraints.of("grammar", grammar).begin()
        for token in [*tokenizer.encode(text, add_special_tokens=False), END]:
            if state.complete:
                return token == END
            forced = state.forced(1)
            if forced != [token] if forced else not state.mask()[token]:
                return False
            state.follow(token)
        return True

    return followed


@pytest.mark.parametrize("syntax", [HERMES, MISTRAL, MISTRAL_ARGS, LLAMA3])
def test_calls_as_they_are_written_are_answers(follows: Follows, syntax: Syntax) -> None:
    one, two = syntax.frame.write([BERN]), syntax.frame.write([CLOCK, BERN])
    assert follows(one, syntax, ANY)
    assert follows(one, syntax, ONE)
    assert follows(two, syntax, ANY)
    assert not follows(two, syntax, ONE)
    assert not follows(one, syntax, NAMED)
    assert follows(syntax.frame.write([CLOCK]), syntax, NAMED)
    assert not follows("Hello", syntax, ANY)
    for wrong in ('{"city": 1}', '{"day": 3}', '{"city": "Bern", "x": 1}'):
        assert not follows(syntax.frame.write([ToolCall("weather", wrong)]), syntax, ANY)


@pytest.mark.parametrize("tags", KNOWN)  # tokens of their own, and letters
def test_reasoning_may_stand_in_front(follows: Follows, tags: Tags) -> None:
    call = HERMES.frame.write([BERN])
    rest = f"\nHm, {tags.closing[:3]}.\n{tags.closing}\n\n{call}"
    whole = tags.opening + rest
    assert follows(call, HERMES, ANY, tags)
    assert follows(whole, HERMES, ANY, tags)
    assert not follows(rest, HERMES, ANY, tags)
    assert follows(rest, HERMES, ANY, tags, f"{tags.opening}\n")
    assert not follows(call, HERMES, ANY, tags, f"{tags.opening}\n")
    assert follows(call, HERMES, ANY, tags, f"{tags.opening}\n\n{tags.closing}\n\n")
    assert not follows(whole, HERMES, ANY, tags, f"{tags.opening}\n\n{tags.closing}\n\n")
