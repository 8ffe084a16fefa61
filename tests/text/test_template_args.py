"""Variables of a chat template as they are typed: NAME=VALUE, and what shows them."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparity_edge.cli.options.template import add_template_option, template_args
from sparity_edge.errors import OptionError
from sparity_edge.text.chat_template import plain_variables
from sparity_edge.text.template_args import read_pair, read_variables, shown_variables

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("enable_thinking=false", ("enable_thinking", False)),
        ("enable_thinking=True", ("enable_thinking", True)),
        ("effort=low", ("effort", "low")),
        ("effort=", ("effort", "")),
        ("date=2026=1", ("date", "2026=1")),
        ("budget=12", ("budget", 12)),
        ("tools=[1, 2]", ("tools", [1, 2])),
        ("x=none", ("x", None)),
        ("x=NaN", ("x", "NaN")),
        ("x=" + "[" * 100_000, ("x", "[" * 100_000)),
    ],
)
def test_pair(text: str, pair: tuple[str, Any]) -> None:
    assert read_pair(text) == pair


@pytest.mark.parametrize("text", ["", "x", "=1", "a b=1", "1x=1", '{"a": 1}'])
def test_no_pair(text: str) -> None:
    with pytest.raises(OptionError, match="is not NAME=VALUE, as in enable_thinking=false"):
        read_pair(text)


@given(st.dictionaries(st.sampled_from(["a", "effort", "é"]), JSON))
def test_what_is_shown_reads_as_it_was(variables: dict[str, Any]) -> None:
    for name, value in variables.items():
        assert read_pair(shown_variables({name: value})) == (name, value)


@pytest.mark.parametrize(
    ("given", "variables"),
    [
        (None, {}),
        ("", {}),
        ({"a": 1}, {"a": 1}),
        ('{"a": 1, "b": "x y"}', {"a": 1, "b": "x y"}),
        ("enable_thinking=false", {"enable_thinking": False}),
        ("a=1  b=x", {"a": 1, "b": "x"}),
    ],
)
def test_variables(given: Any, variables: dict[str, Any]) -> None:
    assert read_variables(given) == variables


@pytest.mark.parametrize("given", ["true", "a", "a=1 b", "[1]", 3, ["a=1"]])
def test_no_variables(given: Any) -> None:
    with pytest.raises(OptionError, match=r"^template_args.*\.$"):
        read_variables(given)


def test_too_deep_a_value_is_refused_in_a_sentence() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(OptionError, match="nested too deeply"):
        plain_variables({"a": deep})


def test_option_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_template_option(parser)
    given = ["--template-arg", "a=1", "--template-arg", "b=x y", "--template-arg", "a=2"]
    assert template_args(parser.parse_args(given)) == {"a": 2, "b": "x y"}
    assert template_args(parser.parse_args([])) == {}
    with pytest.raises(SystemExit):
        parser.parse_args(["--template-arg", "thinking"])
    assert "'thinking' is not NAME=VALUE, as in enable_thinking=false" in capsys.readouterr().err
