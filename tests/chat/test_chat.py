"""The chat session: turns, interruptions, commands, saving and loading."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeGenerator, ScriptedInput

from sparity_edge.chat.commands import COMMANDS, is_command
from sparity_edge.chat.conversation import Conversation, load, save
from sparity_edge.chat.repl import run
from sparity_edge.chat.session import ChatSession
from sparity_edge.errors import OptionError, SparityError, TemplateError
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.settings import BY_NAME, change_setting, from_json, to_json
from sparity_edge.terminal.screen import Screen, neutral

Typed = str | type[BaseException]


def talk(*typed: Typed, script: Any = (), **options: Any) -> tuple[ChatSession, str]:
    """A session in which this is typed, and everything it wrote."""
    written = io.StringIO()
    generator = FakeGenerator(script, max_context=options.pop("max_context", 200))
    params = options.pop("params", SamplingParams())
    system = options.pop("system", None)
    session = ChatSession(generator, params, system, Screen(written, written))  # type: ignore[arg-type]
    run(session, ScriptedInput(*typed))
    return session, written.getvalue()


def said(session: ChatSession) -> list[str]:
    return [message["content"] for message in session.conversation.messages]


def test_every_turn_passes_the_whole_conversation() -> None:
    session, written = talk("one", "  ", "", "two", system="Be brief.")
    assert said(session) == ["one", "You said: one", "two", "You said: two"]
    prompts = session.generator.prompts  # type: ignore[attr-defined]
    assert [len(prompt) for prompt in prompts] == [2, 4]
    assert prompts[1][0] == {"role": "system", "content": "Be brief."}
    assert [message["role"] for message in prompts[1]] == ["system", "user", "assistant", "user"]
    assert "You said: two\n" in written
    assert "tok/s · prompt" in written
    assert "75% of weights read" in written


def test_control_characters_of_the_model_do_not_reach_the_terminal() -> None:
    _, written = talk("x", script=["a\x1b[2J\x07\x9b31m\rb\n\tc\x7f"])
    assert "a[2J31mb\n\tc" in written
    assert neutral("".join(map(chr, range(160)))).isascii()


def test_ctrl_c_keeps_what_was_said_and_the_session() -> None:
    session, written = talk("one", "two", script=[["Hel", "lo", KeyboardInterrupt()], None])
    assert said(session) == ["one", "Hello", "two", "You said: two"]
    assert "Stopped; the conversation keeps what was said." in written


def test_ctrl_c_before_the_answer_keeps_no_message() -> None:
    session, written = talk("one", "two", script=[[KeyboardInterrupt()], None])
    assert said(session) == ["two", "You said: two"]
    assert "nothing is kept" in written
    session, _ = talk("one", script=[KeyboardInterrupt()])
    assert said(session) == []


def test_ctrl_c_at_the_prompt_hints_at_the_second_time() -> None:
    _, written = talk(KeyboardInterrupt)
    assert "Ctrl-D" not in written
    _, written = talk(KeyboardInterrupt, KeyboardInterrupt)
    assert "Ctrl-D or /exit leaves." in written
    _, written = talk(KeyboardInterrupt, "hi", KeyboardInterrupt)
    assert "Ctrl-D" not in written


def test_a_full_context_is_said_and_the_session_goes_on() -> None:
    session, written = talk("x" * 300, "hi", max_context=100)
    assert "The prompt has 300 tokens and the context 100." in written
    assert "/clear begins a new conversation" in written
    assert said(session) == ["hi", "You said: hi"]


def test_a_cut_answer_says_why() -> None:
    session, written = talk("x" * 92, max_context=100)
    assert said(session)[1] == "You said"
    assert "Cut: the context of 100 tokens is full. A larger --max-context" in written
    assert "/clear begins a new conversation." in written
    _, written = talk("hi", params=SamplingParams(max_tokens=3))
    assert "Cut after max_tokens=3." in written


def test_an_error_of_the_model_is_one_line_and_takes_the_message_back() -> None:
    refusal = TemplateError("The model's chat template refuses this conversation: no system.")
    session, written = talk("one", "two", script=[refusal, None])
    assert str(refusal) in " ".join(written.split())
    assert said(session) == ["two", "You said: two"]
    session, written = talk("one", script=[["part", SparityError("A logit is not a number.")]])
    assert written.splitlines()[:2] == ["part", "A logit is not a number."]
    assert said(session) == []


def test_regen() -> None:
    session, _ = talk("one", "/regen", script=["first", "second"])
    assert said(session) == ["one", "second"]
    session, _ = talk("one", "/regen", script=["first", [KeyboardInterrupt()]])
    assert said(session) == ["one", "first"]  # nothing better came
    _, written = talk("/regen")
    assert "no reply to make again" in written


def test_clear_system_and_stats() -> None:
    session, written = talk("one", "/system Be kind.", "/system", "/clear", "two", "/stats")
    assert session.conversation.system == "Be kind."
    assert said(session) == ["two", "You said: two"]
    assert "The system prompt is set from the next reply on." in written
    assert "replies          2" in written
    assert "of 200 tokens" in written
    session, written = talk("/system", "/system a\n b", "/system -", "/system", system=None)
    assert session.conversation.system is None
    assert written.count("No system prompt is set") == 2


def test_set() -> None:
    session, written = talk(
        "/set", "/set top-k 5", "/set seed 7", '/set stop "a b" c', "/set logit_bias 5=-inf 6=1"
    )
    assert all(name in written for name in BY_NAME)
    assert session.params.top_k == 5
    assert session.params.seed == 7
    assert session.params.stop == ("a b", "c")
    assert session.params.logit_bias == {5: float("-inf"), 6: 1.0}
    talk("hi", params=session.params)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("/set nothing 5", "there are temperature, top_k"),
        ("/set temprature 5", "Did you mean temperature?"),
        ("/set temperature hot", "temperature: 'hot' is not a number."),
        ("/set temperature 1000", "temperature=1000.0 is out of range"),
        ("/set top_k", "/set top_k needs a value"),
        ("/set stop 'a", "without its partner"),
        ("/set ignore_eos maybe", "neither true nor false"),
        ("/set logit_bias 5", "not ID=VALUE"),
        ("/set seed none", "seed is none from now on"),
        ("/claer", "Did you mean /clear?"),
        ("/xyz", "There is no command /xyz; /help lists them."),
        ("/save", "/save needs the name of a file."),
        ("/load", "/load needs the name of a file."),
        ("/load /no/such/file", "cannot be read"),
        ("/save /no/such/folder/file", "cannot be written"),
        ("/save .", "exists and is not a saved conversation"),
        (f"/save {'x' * 5000}", "cannot be written"),
        ("/load ~nobody-of-that-name/x", "names no folder"),
        ("/load \0", "/load needs the name of a file."),
        ("/help", "/regen -- reply to the last message once more."),
        ("/?", "Ctrl-D leaves."),
    ],
)
def test_commands_answer(typed: str, answer: str) -> None:
    session, written = talk(typed)
    assert answer in " ".join(written.split())
    assert said(session) == []


@pytest.mark.parametrize("typed", ["/exit", "/quit", "/bye", "/EXIT"])
def test_leaving(typed: str) -> None:
    session, _ = talk(typed, "more")
    assert said(session) == []


def test_what_is_a_command() -> None:
    assert all(map(is_command, [*COMMANDS, "/set top_k 1", "/system a\nb", "/", "/?"]))
    assert not any(map(is_command, ["/etc/passwd is what?", " /help", "a /help", "1/2", ""]))


def test_save_and_load(tmp_path: Path) -> None:
    file = tmp_path / "a talk.json"
    talk("one", "/set top_p 0.5", "/set logit_bias 3=-inf", f"/save '{file}'", system="S\n\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["a talk.json"]
    session, written = talk(f"/load {file}", "two")
    assert said(session) == ["one", "You said: one", "two", "You said: two"]
    assert session.conversation.system == "S\n?"
    assert session.params == SamplingParams(top_p=0.5, logit_bias={3: float("-inf")})
    assert "Loaded 2 messages" in " ".join(written.split())
    talk("three", f"/save {file}")  # a saved conversation may be replaced
    assert load(file)[0].messages[0]["content"] == "three"


def test_save_replaces_no_other_file(tmp_path: Path) -> None:
    file = tmp_path / "thesis.txt"
    file.write_text("years of work")
    _, written = talk(f"/save {file}")
    assert "is not a saved conversation" in " ".join(written.split())
    assert file.read_text() == "years of work"


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "talk.json"
    save(file, Conversation(), SamplingParams(), "m")
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OptionError, match="No space left"):
        save(file, Conversation("other"), SamplingParams(), "m")
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["talk.json"]  # noqa: PTH208


GOOD = {
    "format": "sparity-edge conversation",
    "version": 1,
    "model": "m",
    "system": None,
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    "settings": to_json(SamplingParams()),
}


@pytest.mark.parametrize("change", [{"version": "x" * 3000}, {"settings": {"seed": "x" * 3000}}])
def test_a_long_value_is_cut_in_the_message(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    save(path, Conversation(None), SamplingParams(), "m")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(OptionError) as caught:
        load(path)
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        json.dumps(GOOD)[:-20].encode(),
        json.dumps({**GOOD, "version": 2}).encode(),
        *(
            json.dumps({**GOOD, **change}).encode()
            for change in (
                {"format": "other"},
                {"system": 5},
                {"messages": 5},
                {"messages": [5]},
                {"messages": [{"role": "system", "content": "x"}]},
                {"messages": [{"role": "user", "content": None}]},
                {"messages": GOOD["messages"][:1]},  # type: ignore[index]
                {"messages": GOOD["messages"][::-1]},  # type: ignore[index]
                {"settings": None},
                {"settings": {"temperature": "hot"}},
                {"settings": {"nothing": 1}},
                {"settings": {"logit_bias": {"x": 1}}},
                {"settings": {"logit_bias": 5}},
            )
        ),
        json.dumps({key: value for key, value in GOOD.items() if key != "model"}).encode(),
    ],
)
def test_damaged_files_keep_the_session(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    session, written = talk("one", f"/load {file}", "two")
    assert "nothing was loaded." in " ".join(written.split())
    assert said(session) == ["one", "You said: one", "two", "You said: two"]


def test_settings_survive_json() -> None:
    params = SamplingParams(stop=("a", "b"), seed=1, logit_bias={1: float("-inf"), 2: 0.5})
    assert from_json(json.loads(json.dumps(to_json(params)))) == params
    for name in BY_NAME:
        change_setting(params, name, "1=1" if name == "logit_bias" else "1") if (
            name not in ("ignore_eos", "stop_loops")
        ) else change_setting(params, name, "on")


def test_a_loop_is_told_and_settings_name_what_is_the_models_own() -> None:
    session, written = talk("x", "/set stop_loops off", "/settings", script=[["so ", "<loop>"]])
    assert said(session) == ["x", "so "]
    assert "Stopped: the text repeats itself word for word." in written
    assert "/set stop_loops false" in written
    assert "stop_loops is false from now on." in written
    assert "generation_config.json" not in written
    own = SamplingParams(top_k=7)
    written = io.StringIO()
    generator = FakeGenerator()
    generator.default_params = own
    run(ChatSession(generator, own, None, Screen(written, written)), ScriptedInput("/settings"))  # type: ignore[arg-type]
    assert "generation_config.json has its own defaults: top_k." in written.getvalue()
