"""/set template: variables of the model's chat template in a running chat."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeGenerator, ScriptedInput

from sparity_edge.chat.conversation import Conversation, load, save
from sparity_edge.chat.repl import run
from sparity_edge.chat.session import ChatSession
from sparity_edge.errors import OptionError
from sparity_edge.generation.params import SamplingParams
from sparity_edge.terminal.screen import Screen


def talk(*typed: str, given: dict[str, Any] | None = None) -> tuple[dict[str, Any], str]:
    """The variables of the last reply, and everything a session with this input wrote."""
    written, generator = io.StringIO(), FakeGenerator()
    screen = Screen(written, written)
    session = ChatSession(generator, SamplingParams(), None, screen, given)  # type: ignore[arg-type]
    run(session, ScriptedInput(*typed))
    return dict(generator.template_args or {}), " ".join(written.getvalue().split())


def test_a_variable_counts_from_the_next_reply_on() -> None:
    before, _ = talk("one", "/set template enable_thinking=false")
    assert before == {}
    after, written = talk("/set template enable_thinking=false", "one")
    assert after == {"enable_thinking": False}
    assert "template is enable_thinking=false from now on." in written


def test_it_goes_beside_those_of_the_command_line_and_over_them() -> None:
    given = {"effort": "low", "tools": [1]}
    after, _ = talk("/set template effort=very high", "/set template x=1", "one", given=given)
    assert after == {"effort": "very high", "tools": [1], "x": 1}
    after, written = talk("/set template NONE", "one", given=given)
    assert after == {}
    assert "template is none from now on." in written
    assert given == {"effort": "low", "tools": [1]}


def test_the_list_of_settings_shows_them() -> None:
    _, written = talk("/set", given={"effort": "low", "x": 1})
    assert "template effort=low x=1 NAME=VALUE for the model's chat template" in written
    _, written = talk("/set")
    assert "template none NAME=VALUE" in written
    _, written = talk("/help")
    assert "/set template NAME=VALUE" in written


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("/set template", "/set template needs a value"),
        ("/set template thinking", "is not NAME=VALUE, as in enable_thinking=false"),
        ("/set template messages=1", "'messages' is no name of a template's variable"),
        ("/set template x=" + "[" * 300 + "]" * 300 + " " * 9, ""),
    ],
)
def test_what_cannot_be_set_is_one_sentence(typed: str, sentence: str) -> None:
    after, written = talk("/set template a=1", typed, "one")
    assert after["a"] == 1
    assert "messages" not in after
    assert sentence in written


def test_a_saved_conversation_keeps_them(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    talk("/set template enable_thinking=false", "one", f"/save {file}")
    after, _ = talk("/set template other=1", f"/load {file}", "two")
    assert after == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1], "does not map names"),
        ({"messages": 1}, "no name of a template's variable"),
        ({"a b": 1}, "no name of a template's variable"),
    ],
)
def test_a_damaged_file_is_refused(value: Any, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    save(file, Conversation(None), SamplingParams(), "m")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "template_args": value}))
    with pytest.raises(OptionError, match=f"is damaged .*{reason}"):
        load(file)
    del content["template_args"]  # as versions before this one wrote it
    file.write_text(json.dumps(content))
    assert load(file)[0].template_args == {}
