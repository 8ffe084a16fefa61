"""What people type at a command line: values that begin with a hyphen, and near misses of names."""

from __future__ import annotations

import pytest
from fakes import FakeGenerator, Run

from sparity_edge.spelling import did_you_mean, nearest


@pytest.mark.parametrize("words", [[], ["plan"], ["cache"]])
def test_a_command_alone_shows_its_help(run: Run, words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out.startswith("usage: sparity-edge")
    assert "list" in out


def test_values_may_begin_with_a_hyphen(run: Run, generator: FakeGenerator) -> None:
    words = ["--stop", "---", "--stop", "--", "--system", "--x", "--presence-penalty", "-1e-3"]
    assert run("chat", "--prompt", "-e", *words)[::2] == (0, "")
    assert generator.prompts[-1] == [
        {"role": "system", "content": "--x"},
        {"role": "user", "content": "-e"},
    ]
    params = generator.params[-1]
    assert params is not None
    assert (params.stop, params.presence_penalty) == (("---", "--"), -1e-3)
    assert run("generate", "-p", "-")[0] == 0
    assert generator.prompts[-1] == "-"


def test_an_option_is_no_value_unless_it_is_joined(run: Run, generator: FakeGenerator) -> None:
    code, out, err = run("chat", "-p", "-v")
    assert (code, out) == (2, "")
    assert "--prompt=-v" in err
    assert run("chat", "--prompt=-v")[0] == 0
    assert generator.prompts[-1][-1]["content"] == "-v"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("caht", "sparity-edge chat?"),
        ("Chat", "sparity-edge chat?"),
        ("version", "sparity-edge --version?"),
        ("ls", "sparity-edge list?"),
        ("run org/name", "sparity-edge chat?"),
        ("cache ls", "sparity-edge cache list?"),
        ("help", "sparity-edge --help?"),
        ("plan lst m", "sparity-edge plan list?"),
        ("./model.gguf", "sparity-edge chat ./model.gguf"),
        ("org/name", "sparity-edge chat org/name"),
        ("--verison", "--version?"),
        ("-V", "--version?"),
        ("-m model chat", "sparity-edge chat MODEL"),
        ("chat -m model", "sparity-edge chat MODEL"),
        ("bench --model=x", "sparity-edge bench MODEL"),
        ("convert -m model", "sparity-edge convert SOURCE OUT"),
        ("convert a -o b", "sparity-edge convert SOURCE OUT"),
        ("chat --temprature 0", "--temperature?"),
        ("chat --temp 0", "--temperature?"),
        ("generate --n-predict 5", "--max-tokens?"),
        ("generate -n 5", "--max-tokens?"),
        ("chat --max_tokens 5", "--max-tokens?"),
        ("chat --maxcontext=5", "--max-context?"),
        ("plan list m --jsn", "--json?"),
        ("chat m tell me a joke", "belongs in quotation marks"),
    ],
)
def test_near_misses_name_what_was_meant(run: Run, words: str, meant: str) -> None:
    code, out, err = run(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith("sparity-edge: ")
    assert meant in err
    assert err.count("\n") == 1


def test_what_is_near_nothing_gets_no_suggestion(run: Run) -> None:
    assert "did you mean" not in run("xyzzy")[2]
    assert "there are chat, generate" in run("xyzzy")[2]
    assert "did you mean" not in run("chat", "--xyzzy")[2]
    assert "did you mean" not in run("cache", "list", "-m")[2]


def test_help_is_shown_whatever_stands_beside_it(run: Run) -> None:
    code, out, _ = run("chat", "--temprature", "0", "--help")
    assert code == 0
    assert out.startswith("usage: sparity-edge chat")


def test_the_nearest_name() -> None:
    assert nearest("chees", ("auto", "chess")) == "chess"
    assert nearest("CHESS", ("auto", "chess")) == "chess"
    assert nearest("", ("auto", "chess")) is None
    assert did_you_mean("chees", ("auto", "chess")) == " Did you mean chess?"
    assert did_you_mean("teal", ("auto", "chess")) == ""
