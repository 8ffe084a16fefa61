"""JSON on stdout: ASCII only, and no NaN."""

from __future__ import annotations

import json

import pytest

from sparity_edge.terminal.json_output import print_json


def test_json_has_no_nan_and_survives_any_encoding(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [float("nan"), (float("-inf"), 1.5)], "b": {"c": "\u65e5\x9b"}})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"a": [None, [None, 1.5]], "b": {"c": "\u65e5\x9b"}}
