"""`chat` and `generate`: what arrives at the generator, and what stands on stdout and stderr."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest
from fakes import FakeGenerator, Input, Run

from sparity_edge.cli.commands import answering as commands
from sparity_edge.generation.params import SamplingParams


def test_one_shot_writes_only_the_answer(run: Run, generator: FakeGenerator) -> None:
    assert run("chat", "--prompt", "Hi") == (0, "You said: Hi\n", "")
    assert generator.prompts == [[{"role": "user", "content": "Hi"}]]
    assert generator.loaded_with["model"] == "smollm2-135m"
    assert generator.closed


def test_a_pipe_is_one_message(run: Run, generator: FakeGenerator) -> None:
    code, out, err = run("chat", "m", "--system", "S", stdin="\ufefftwo\nlines\n".encode())
    assert (code, err) == (0, "")
    assert out == "You said: two\nlines\n"
    assert generator.prompts[0][0] == {"role": "system", "content": "S"}
    assert generator.loaded_with["model"] == "m"


def test_generate_continues_a_text_without_a_template(run: Run, generator: FakeGenerator) -> None:
    assert run("generate", "m", "-p", "Once")[:2] == (0, "You said: Once\n")
    assert run("generate", stdin=b"\xff upon")[:2] == (0, "You said: \ufffd upon\n")
    assert generator.prompts[0] == "Once"


def test_sampling_and_loading_options_arrive(run: Run, generator: FakeGenerator) -> None:
    words = "--temperature 0 --top-k 3 --top-p 0.5 --min-p 0.1 --repetition-penalty 1.1 --seed 4"
    words += " --presence-penalty -0.5 --frequency-penalty 0.2 --max-tokens 9 --stop A --stop B"
    words += " --logit-bias 5=-inf --logit-bias 6=1.5 --ignore-eos"
    loading = "--dtype int8 --threads 3 --max-context 77 --sparsity 0.25 --offline"
    assert run("chat", "-p", "x", *words.split(), *loading.split())[0] == 0
    params = generator.params[0]
    assert params is not None
    assert (params.temperature, params.top_k, params.seed, params.max_tokens) == (0, 3, 4, 9)
    assert (params.top_p, params.min_p, params.repetition_penalty) == (0.5, 0.1, 1.1)
    assert (params.presence_penalty, params.frequency_penalty) == (-0.5, 0.2)
    assert params.stop == ("A", "B")
    assert params.logit_bias == {5: float("-inf"), 6: 1.5}
    assert params.ignore_eos
    for key, value in (("dtype", "int8"), ("threads", 3), ("max_context", 77), ("sparsity", 0.25)):
        assert generator.loaded_with[key] == value
    assert generator.loaded_with["offline"] is True


def test_what_the_answer_must_follow_arrives(
    run: Run, generator: FakeGenerator, tmp_path: Path
) -> None:
    schema = tmp_path / "pet.json"
    schema.write_text('{"type": "object"}', encoding="utf-8")
    assert run("chat", "-p", "x", "--schema", str(schema))[0] == 0
    assert run("generate", "-p", "x", "--regex", "[0-9]+")[0] == 0
    assert run("generate", "-p", "x")[0] == 0
    assert generator.constraints == [{"schema": '{"type": "object"}'}, {"regex": "[0-9]+"}, {}]
    code, _, err = run("chat", "-p", "x", "--grammar", str(tmp_path / "none.lark"))
    assert code == 1
    assert err.endswith("none.lark: No such file or directory.\n")


def test_verbose_tells_on_stderr(run: Run) -> None:
    code, out, err = run("chat", "-p", "Hi", "-v")
    assert (code, out) == (0, "You said: Hi\n")
    assert "Loaded 90.0 MB from /models/fake in 0.25 s" in err
    assert "tok/s" in err


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_a_cut_answer_says_so_in_a_pipe(run: Run, generator: FakeGenerator, command: str) -> None:
    assert run(command, "-p", "12345", "--max-tokens", "3") == (
        0,
        "You\n",
        "Cut after max_tokens=3.\n",
    )
    generator.max_context = 8
    code, out, err = run(command, "-p", "12345")
    assert (code, out) == (0, "You\n")
    assert err.startswith("Cut: the context of 8 tokens is full.")
    assert err.count("\n") == 1


def test_ctrl_c_in_one_shot(run: Run, generator: FakeGenerator) -> None:
    generator.script = [["some ", "text", KeyboardInterrupt()]]
    assert run("chat", "-p", "x") == (130, "some text\n", "")
    generator.script = [KeyboardInterrupt()]
    assert run("chat", "-p", "x")[0] == 130


def test_the_session_needs_a_terminal_and_has_a_header_of_three_lines(
    run: Run, generator: FakeGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Input, "terminal", True)
    monkeypatch.setattr(
        "sparity_edge.chat.line_input.open_line_input", lambda *_: fakes.ScriptedInput("Hi")
    )
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, _ = run("chat")
    assert code == 0
    assert len(commands.header(generator)) == 3  # type: ignore[arg-type]
    assert "fake-model · 135 M parameters · int4/int8, 90 MB" in out
    assert "context 200 tokens · 2 threads · dense" in out
    assert "You said: Hi" in out


def test_a_models_own_defaults_give_way_to_options(run: Run, generator: FakeGenerator) -> None:
    generator.default_params = SamplingParams(temperature=0.2, top_k=7, repetition_penalty=1.1)
    for command in ("chat", "generate"):
        assert run(command, "-p", "x", "--top-k", "3")[0] == 0
        params = generator.params[-1]
        assert params is not None
        assert (params.temperature, params.top_k, params.repetition_penalty) == (0.2, 3, 1.1)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["chat"], True),
        (["chat", "--no-stop-loops"], False),
        (["generate"], False),
        (["generate", "--stop-loops"], True),
    ],
)
def test_loops_end_in_a_chat_unless_told_not_to(
    run: Run, generator: FakeGenerator, words: list[str], wanted: bool
) -> None:
    generator.script = [["so ", "so ", "<loop>"]]
    code, out, err = run(*words, "-p", "x")
    assert (code, out) == (0, "so so \n")
    assert err.startswith("Stopped: the text repeats itself word for word.")
    assert "--no-stop-loops" in err
    params = generator.params[-1]
    assert params is not None
    assert params.stop_loops == wanted
