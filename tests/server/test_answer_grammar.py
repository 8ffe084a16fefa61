"""Grammars of answers: calls as a syntax writes them, and what was asked for beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizer_folders as folders
import tool_templates as templates

from sparity_edge.errors import OptionError
from sparity_edge.generation.constraint.constraints import Constraints
from sparity_edge.server.constraints import Wanted
from sparity_edge.server.conversations.answer_grammar import answer_grammar
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
    """follows(text, syntax, offer, tags, prompt, asked): whether the text is a whole answer."""
    folder = folders.write(tmp_path_factory.mktemp("tokenizer"), "nothing")
    added = {str(folders.BASE + n): folders.token(text) for n, text in enumerate(ADDED)}
    folders.write_config(folder, {"added_tokens_decoder": added})
    tokenizer = Tokenizer.from_folder(folder)
    constraints = Constraints(tokenizer, tokenizer.vocab_size, [END])

    def followed(
        text: str,
        syntax: Syntax | None,
        offer: Offer,
        tags: Tags | None = None,
        prompt: str = "",
        asked: Wanted | None = None,
    ) -> bool:
        grammar = answer_grammar(tokenizer, offer, syntax, asked, tags, prompt)
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


ASKED = (
    (Wanted("response_format", "json_object", None), '{"a": 1}'),
    (Wanted("regex", "regex", "ab+"), "abb"),
    (Wanted("grammar", "grammar", 'start: x+\nx: "yo"'), "yoyo"),
    (Wanted("grammar", "grammar", '{"grammars": [{"lark_grammar": "start: \\"yo\\""}]}'), "yo"),
)


@pytest.mark.parametrize(("asked", "text"), ASKED)
def test_what_was_asked_for_stands_beside_calls(follows: Follows, asked: Wanted, text: str) -> None:
    call, tags = HERMES.frame.write([BERN]), KNOWN[0]
    reasoning = f"{tags.opening}\nHm.\n{tags.closing}\n\n"
    for found in (text, call, reasoning + text, reasoning + call):
        assert follows(found, HERMES, Offer(TOOLS), tags, asked=asked)
    assert not follows("Hello", HERMES, Offer(TOOLS), tags, asked=asked)
    assert not follows(text, HERMES, ANY, tags, asked=asked)
    assert follows(reasoning + text, None, Offer(), tags, asked=asked)
    assert not follows(reasoning + call, None, Offer(), tags, asked=asked)


@pytest.mark.parametrize("grammar", ['{"grammars": []}', "{}", '{"grammars": [1]}'])
def test_grammars_that_are_not_one_are_refused(follows: Follows, grammar: str) -> None:
    with pytest.raises(OptionError, match="grammar has to be one grammar beside tools"):
        follows("", HERMES, Offer(TOOLS), asked=Wanted("grammar", "grammar", grammar))


def test_strict_tools_are_held_to_their_schema_wherever_they_are_called(follows: Follows) -> None:
    strict = Offer(TOOLS, strict=True)
    call = HERMES.frame.write([BERN])
    for text in ("Hello", call, f"Well.\n{call}\n{call}", "<tool_cal", ""):
        assert follows(text, HERMES, strict)
    for text in (call.replace("3", "true"), "<tool_call>", f"{call} so"):
        assert not follows(text, HERMES, strict)


def test_an_answer_is_free_if_nothing_was_asked_for(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(folders.write(tmp_path / "t", "nothing"))
    for offer in (Offer(TOOLS), Offer(TOOLS, strict=True)):  # no token tells where calls begin
        assert answer_grammar(tokenizer, offer, LLAMA3, None, KNOWN[0], "") is None
