"""`perplexity`: the arguments that arrive, and what is printed of the result."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from fakes import Run


def test_perplexity(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}

    def perplexity(_: Any, text: str, **options: Any) -> Any:
        given.update(options, text=text)
        return types.SimpleNamespace(
            perplexity=12.5, stderr=0.1, tokens=99, active_weight_fraction=1.0
        )

    stand_in = types.ModuleType("sparity_edge.quality.perplexity")
    stand_in.perplexity = perplexity  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sparity_edge.quality.perplexity", stand_in)
    text = tmp_path / "text"
    text.write_text("some text", encoding="utf-8")
    out = run("perplexity", "m", "--text", str(text), "--window", "64", "--windows", "2", "--json")[
        1
    ]
    assert json.loads(out) == {
        "perplexity": 12.5,
        "stderr": 0.1,
        "tokens": 99,
        "active_weight_fraction": 1.0,
    }
    assert (given["window"], given["windows"], given["text"]) == (64, 2, "some text")
    assert "12.5000 ± 0.1000" in run("perplexity", "--text", str(text))[1]
    text.write_bytes(b"ok \xff")
    assert "is not UTF-8 text (byte 3)" in run("perplexity", "--text", str(text))[2]
