"""bench/robustness.py from end to end, a few cases of each campaign; and what counts as a fault."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sparity_edge.errors import SourceError

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="the campaigns fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.mark.parametrize(
    ("campaign", "count"), [("mutated", 20), ("killed", 3), ("full_disk", 3), ("together", 8)]
)
def test_a_campaign(
    bench: Any,
    campaign: str,
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "robustness.json"
    words = [campaign, "--quick", "--count", str(count), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["robustness", *words])
    code = bench("robustness").main()
    report = json.loads(out.read_text(encoding="utf-8"))["campaigns"][campaign]
    assert report["faults"] == []
    assert (code, report["tried"], report["survived"]) == (0, count, count)
    assert f"| {count} | {count} | 0 |" in capsys.readouterr().out


def test_what_is_a_fault(bench: Any) -> None:
    judge = bench("campaigns.mutated").judge

    def fail(error: Exception) -> tuple[str, str]:
        def read() -> None:
            raise error

        result: tuple[str, str] = judge(read)
        return result

    assert judge(lambda: None) == ("accepted", "")
    assert fail(SourceError("x is damaged; fetch it again.")) == ("refused", "")
    assert fail(SourceError("a" * 301))[0] == "fault"
    assert fail(SourceError("a\nb"))[0] == "fault"
    assert fail(KeyError("a"))[1] == "KeyError: 'a'"


def test_a_crash_is_put_down_to_its_case(bench: Any) -> None:
    mutated = bench("campaigns.mutated")
    worker = mutated.Worker()
    try:
        os.kill(worker._process.pid, 9)
        assert worker("chat", 0) == ("fault", "crash, exit code -9")
        assert worker("chat", 0)[0] in ("accepted", "refused")
    finally:
        worker.close()


def test_damage_follows_from_the_number_of_the_case(bench: Any) -> None:
    mutations = bench("campaigns.mutations")
    text = json.dumps({"a": [1, 2, {"b": None}], "c": "d"}).encode()
    for damage in (mutations.damaged_bytes, mutations.damaged_json, mutations.damaged_text):
        results = [damage(text, Random(seed)) for seed in range(30)]
        assert results == [damage(text, Random(seed)) for seed in range(30)]
        assert len(set(results)) > 15
