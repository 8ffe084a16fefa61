"""Escapes in stop strings that are typed, on the command line and with /set; none in Python."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparity_edge import SamplingParams
from sparity_edge.cli.options.sampling import add_sampling_options, sampling_params
from sparity_edge.generation.escapes import escape, unescape
from sparity_edge.generation.settings import change_setting, from_json, shown, to_json

TYPED = [
    (r"\ndef", "\ndef"),
    (r"\\n", r"\n"),
    (r"a\tb\r", "a\tb\r"),
    (r"\"it\'s\"", '"it\'s"'),
    (r"\x3cend\u003e", "<end>"),
    (r"\U0001f600", "😀"),
    (r"\d+\ ", r"\d+\ "),  # no escapes: as they stand
    ("\\", "\\"),
    (r"\x4", r"\x4"),
    (r"\ud800\U00110000", r"\ud800\U00110000"),
    ("Grüße\n", "Grüße\n"),
]


@pytest.mark.parametrize(("typed", "meant"), TYPED)
def test_what_is_typed_is_what_is_meant(typed: str, meant: str) -> None:
    parser = argparse.ArgumentParser()
    add_sampling_options(parser)
    params = sampling_params(parser.parse_args([f"--stop={typed}", "--stop", "x"]))
    assert params.stop == (meant, "x")
    assert unescape(typed) == meant
    assert SamplingParams(stop=typed).stop == (typed,)


@given(st.text())
def test_escaping_and_back(text: str) -> None:
    assert unescape(escape(text)) == text
    assert "\n" not in escape(text)


@given(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=3))
def test_set_takes_what_it_shows_and_files_keep_texts_as_they_are(stop: list[str]) -> None:
    params = SamplingParams(stop=stop)
    if stop[0].lower() != "none" or len(stop) > 1:
        assert change_setting(SamplingParams(), "stop", shown(params.stop)) == params
    assert from_json(to_json(params)) == params


@pytest.mark.parametrize(
    ("line", "stop"),
    [
        (r'"\ndef"', ("\ndef",)),
        (r"\ndef", ("\ndef",)),
        (r"'\n\n' ###", ("\n\n", "###")),
        (r'" the" "it' + "'s" + '"', (" the", "it's")),
        ("#", ("#",)),
        ("none", ()),
    ],
)
def test_set_stop(line: str, stop: tuple[str, ...]) -> None:
    assert change_setting(SamplingParams(stop="x"), "stop", line).stop == stop
