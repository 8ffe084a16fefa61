"""Duels of guesses: prompts of edited code, rounds of sides, llama-server's times, the table."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FENCED = "Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nDone."
# A program that takes llama-server's options and answers as it does.
SERVER = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answers(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self): self.say({{"status": "ok"}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["temperature"] == 0
        self.say({{"timings": {{"predicted_n": asked["n_predict"], "predicted_ms": 500.0,
                               "draft_n": len(asked["prompt"]), "draft_n_accepted": 1}}}})
    def say(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answers).serve_forever()
"""


def test_code_of_the_models_own_is_edited(bench: Any, tmp_path: Path) -> None:
    prompts = bench("speculation.prompts")
    (tmp_path / "humaneval").mkdir()
    lines = [json.dumps({"prompt": f"def f{each}(): ..."}) for each in range(8)]
    (tmp_path / "humaneval" / "HumanEval.jsonl").write_text("\n".join(lines))
    asked: list[str] = []

    def chat(prompt: str, _: Any) -> SimpleNamespace:
        asked.append(prompt)
        return SimpleNamespace(text="no code" if "f4" in prompt else FENCED)

    found = prompts.prompts_of("edit", tmp_path, 4, SimpleNamespace(chat=chat))
    assert ["f0" in asked[0], "f2" in asked[1], "f4" in asked[2]] == [True] * 3
    assert found[0].endswith("`given`.\n```python\ndef add(a, b):\n    return a + b\n```")
    assert "```python\nno code\n```" in found[2]
    assert len(set(found)) == 3  # the changes come around again
    assert prompts.spread_evenly("abc", 5) == ["a", "b", "c"]


def test_sides_are_interleaved_and_their_medians_counted(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = bench("speculation.peer")
    monkeypatch.setattr(peer, "PAUSE", 0)
    order: list[str] = []

    def side(name: str, seconds: Sequence[float]) -> Any:
        left = iter(seconds)

        def ask(_: Sequence[int], tokens: int) -> Mapping[str, float]:
            order.append(f"{name}{tokens}")
            took = 0.0 if tokens == 1 else next(left)
            return {"tokens": tokens - 1, "seconds": took, "drafted": 2, "accepted": 1}

        return ask

    sides = {"ours, a": side("a", [1, 9, 1]), "llama.cpp, b": side("b", [2, 2, 8])}
    found = peer.measure(sides, [[1, 2]], 11, 3)
    assert order == ["a1", "b1", "a11", "b11", "b11", "a11", "a11", "b11"]
    assert found["ours, a"]["tokens_a_second"] == 10
    assert found["llama.cpp, b"]["tokens_a_second"] == 5
    assert (found["ours, a"]["tokens"], found["ours, a"]["accepted"]) == (10, 1)
    report = {"speculation_peer": {"models": {"m": {"edit": found}}}}
    table = bench("pages.speculation").peer_table(report)
    assert "| m | edit | ours, a | 10.0 | 2.00 | 1 of 2 | 1 |" in table


@pytest.mark.skipif(sys.platform == "win32", reason="scripts are no programs there")
def test_what_llama_server_says_of_its_times(bench: Any, tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    program.write_text(SERVER.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    server = bench("speculation.llama_server").LlamaServer
    with server(program, tmp_path, 1, 64, ["--spec-type", "none"]) as started:
        answer = started.answer([5, 6, 7], 11)
    assert answer == {"tokens": 10, "seconds": 0.5, "drafted": 3, "accepted": 1}
    program.write_text(f"#!{sys.executable}\nraise SystemExit(1)\n")
    with pytest.raises(SystemExit, match="does not start"):
        server(program, tmp_path, 1, 64, []).__enter__()
