"""Reasoning is told apart from the answer, in whatever pieces the text arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparity_edge.text.answer_parts import AnswerReader
from sparity_edge.text.reasoning import KNOWN, ReasoningSplitter, tags_of
from sparity_edge.text.tool_calls.call import ToolCall
from sparity_edge.text.tool_calls.parser import CallParser
from sparity_edge.text.tool_calls.syntaxes import HERMES

THINK = KNOWN[0]
CALL = '<tool_call>{"name": "clock"}</tool_call>'


def split(prompt: str, *pieces: str) -> tuple[str, str, str]:
    """The whole text, the reasoning and the answer."""
    splitter = ReasoningSplitter(THINK, prompt)
    parts = [part for piece in pieces for part in splitter.push(piece)] + splitter.flush()
    kinds = {name: "".join(t for kind, t in parts if kind == name) for name, _ in parts}
    whole = "".join(text for _, text in parts)
    return whole, kinds.get("reasoning", ""), kinds.get("answer", "")


@pytest.mark.parametrize(
    ("prompt", "text", "reasoning", "answer"),
    [
        ("", "<think>\nIs it?\n\nYes.\n</think>\n\n  Yes.\n", "Is it?\n\nYes.", "  Yes.\n"),
        ("<|im_start|>assistant\n<think>\n", "Hm.\n</think>\n\nYes", "Hm.", "Yes"),
        ("", " <think>Hm.", "Hm.", ""),
        ("", "<think>Hm.\n</thin", "Hm.\n</thin", ""),
        ("", "<think>\n\n</think>\n\nYes", "", "Yes"),
        ("<think>\n\n</think>\n\n", "Yes", "", "Yes"),
        ("", "It writes <think>x</think>.", "", "It writes <think>x</think>."),
        ("", "\n<thin", "", "\n<thin"),
        ("", "", "", ""),
    ],
)
def test_reasoning_is_told_apart(prompt: str, text: str, reasoning: str, answer: str) -> None:
    assert split(prompt, text) == (text, reasoning, answer)


@given(
    st.sampled_from(["", "<think>"]),
    st.lists(st.sampled_from(["<think>", "</think>", "\n", " ", "a", "<", "</"]), max_size=9),
)
def test_pieces_of_reasoning_make_no_difference(prompt: str, pieces: list[str]) -> None:
    text = "".join(pieces)
    whole = split(prompt, text)
    assert whole[0] == text
    assert split(prompt, *pieces) == whole
    assert split(prompt, *text) == whole


def test_tags_are_those_of_the_template() -> None:
    assert tags_of("{{ '<think>\n\n</think>' }}") == THINK
    assert tags_of("[THINK]") == KNOWN[1]
    assert tags_of("{{ messages }}") is None


@pytest.mark.parametrize("apart", [True, False])
def test_a_call_is_made_behind_the_reasoning_only(apart: bool) -> None:
    parser = CallParser(HERMES, {"clock": ()})
    reader = AnswerReader(ReasoningSplitter(THINK), parser, split=apart)
    part = reader.push(f"<think>{CALL}?</think>Yes {CALL}", ended=True)
    assert part.calls == (ToolCall("clock", "{}"),)
    if apart:
        assert (part.reasoning, part.content) == (f"{CALL}?", "Yes")
    else:
        assert (part.reasoning, part.content) == ("", f"<think>{CALL}?</think>Yes")


def test_an_answer_ends_behind_its_first_call_if_there_may_be_one_only() -> None:
    reader = AnswerReader(parser=CallParser(HERMES, {"clock": ()}), parallel=False)
    assert len(reader.push(f"{CALL}{CALL}more").calls) == 1
    assert reader.push(CALL, ended=True).calls == ()
