"""`/load`: what is shown of a conversation that goes on."""

from __future__ import annotations

import io
from pathlib import Path

from fakes import FakeGenerator, ScriptedInput

from sparity_edge.chat.conversation import Conversation, save
from sparity_edge.chat.repl import run
from sparity_edge.chat.session import ChatSession
from sparity_edge.generation.params import SamplingParams
from sparity_edge.terminal.screen import Screen


def test_a_loaded_conversation_shows_its_end(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    talk = Conversation(None)
    long = "\n".join(f"line {number}" for number in range(30))
    for question, answer in (("first question", "one"), ("second question", long)):
        talk.say("user", question)
        talk.say("assistant", answer)
    save(path, talk, SamplingParams(), "m")
    written = io.StringIO()
    session = ChatSession(FakeGenerator(), SamplingParams(), None, Screen(written, written))  # type: ignore[arg-type]
    run(session, ScriptedInput(f"/load {path}"))
    assert "> second question\n...\nline 18\n" in written.getvalue()
    assert written.getvalue().rstrip().endswith("line 29")
    assert "first question" not in written.getvalue()
