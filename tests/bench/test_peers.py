"""What duels with other programs rest on: their structures, the pipe, rounds, and the tables."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
HEADER = """
typedef int32_t place;
typedef struct batch {
    int32_t n_tokens; // how many; of course
    place * pos;
    const char* name;
    struct other ** more;
    enum kind   all;  /* struct batch { bool no; } */
    place  first;
    bool   on;
    bool   off;
    size_t size;
    stop_callback stop;
} batch;
struct odd { int32_t bits : 3; };
struct odder { place pos[3]; };
struct unknown { some_t x; };
"""


def test_structure(bench: Any) -> None:
    made = bench("processes.c_structs").structure(HEADER, "batch")
    assert [name for name, _ in made._fields_] == [
        "n_tokens", "pos", "name", "more", "all", "first", "on", "off", "size", "stop"
    ]  # fmt: skip
    assert [made.pos.offset, made.all.offset, made.first.offset] == [8, 32, 36]
    assert [made.off.offset, made.size.offset, ctypes.sizeof(made)] == [41, 48, 64]


@pytest.mark.parametrize("name", ["odd", "odder", "unknown", "absent", "bat"])
def test_no_plain_structure(bench: Any, name: str) -> None:
    with pytest.raises(ValueError, match=r"no plain|unknown kind"):
        bench("processes.c_structs").structure(HEADER, name)


def test_pipe() -> None:
    program = (
        f"import sys; sys.path.append({str(BENCH / 'processes')!r})\n"
        "from serving import serve\n"
        "class Peer:\n"
        "    def __init__(self): self.sum = 0\n"
        "    def add(self, by):\n"
        "        self.sum += by\n"
        "        print('noise')\n"
        "        return {'sum': self.sum}\n"
        "serve(Peer)\n"
    )
    lines = [
        '{"do": "add", "by": 2}',
        '{"do": "add", "by": 3}',
        '{"do": "add", "by": 1, "name": "b"}',
    ]
    run = subprocess.run(
        [sys.executable, "-c", program], input="\n".join(lines), capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert run.stdout.split("\n") == ['{"sum": 2}', '{"sum": 5}', '{"sum": 1}', ""]


def test_another_cpu_lacks_features(bench: Any) -> None:
    present = {"avx2": True, "avx512f": True, "avx512vnni": True, "avxvnni": True, "fma": True,
               "sse4a": False, "avx512fp16": False}  # fmt: skip
    environment = bench("shared.as_cpu").environment
    zen3 = environment("znver3", present)
    assert zen3["NUMBA_CPU_NAME"] == "znver3"
    assert zen3["NUMBA_CPU_FEATURES"] == (
        "+avx2,-avx512f,-avx512fp16,-avx512vnni,-avxvnni,+fma,-sse4a"
    )
    assert "+avxvnni" in environment("alderlake", present)["NUMBA_CPU_FEATURES"]


class FakePeer:
    """In place of another program: two tokens take two seconds."""

    def __init__(self, _: object) -> None:
        pass

    def __call__(self, do: str, **words: Any) -> dict[str, Any]:
        if do == "load":
            return {"version": "1"}
        return {"seconds": float(len(words.get("tokens", ())))}

    def close(self) -> None:
        pass


@pytest.fixture
def report(bench: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    duel = bench("shared.duel")
    for name, value in {"LlamaCpp": FakePeer, "IkLlamaCpp": FakePeer, "PROMPT": 16}.items():
        monkeypatch.setattr(duel, name, value)
    options = SimpleNamespace(
        threads=2, rounds=2, tokens=2, depths=[0, 8], peer_python="python", ik=Path("build")
    )
    each = duel.Duel("a model", folder, None, options)
    each.decode(0)
    each.decode(8)
    each.prefill(16)
    each.prefill(8)
    each.close()
    result: dict[str, Any] = each.report
    return result


def test_duel(bench: Any, report: dict[str, Any]) -> None:
    assert report["peer"] == {"version": "1"}
    assert report["peers"] == {"ik_llama.cpp": {"version": "1"}}
    part = report["decode"]["8"]
    assert set(part["seconds_a_token"]) == {"ours", "llama.cpp", "ik_llama.cpp"}
    assert part["seconds_a_token"]["llama.cpp"]["median"] == 1
    assert part["speed_ratio"]["median"] > 1
    assert set(part["against"]) == {"ik_llama.cpp"}
    assert report["prefill"]["tokens"] == 16
    assert set(report["prompts"]) == {"8"}
    text = bench("shared.duel").show([report])
    assert "tg at 8" in text
    assert "pp8" in text
    assert "ik_llama.cpp tok/s" in text


def test_results_are_added_to_older_ones(bench: Any) -> None:
    merged = bench("shared.duel").merged
    former = {"decode": {"0": 1, "8": 2}, "prefill": 3, "peer": 4}
    new = {"decode": {"8": 5}, "prompts": {"128": 6}, "peer": 7}
    assert merged(former, new) == {
        "decode": {"0": 1, "8": 5}, "prefill": 3, "peer": 7, "prompts": {"128": 6}
    }  # fmt: skip


def test_table_of_floats(bench: Any) -> None:
    pages, tables = bench("pages.programs"), bench("pages.tables")
    time = {"median": 0.5}
    row = {"case": "chess@0.5", "seconds_a_token": time, "against_dense": {"median": 1.2},
           "against torch bf16": {"median": 3.0}, "active_weight_fraction": 0.7}  # fmt: skip
    results = {"plans": {"models": {"m": {"dtype": "bf16", "rows": [row]}}}}
    assert "| m | chess@0.5 | 2.00 | dense 1.20, torch bf16 3.00 | 0.700 |" in pages.floats_table(
        results
    )
    assert tables.quantised(results) == {}
    assert pages.floats_table({"plans": {"models": {}}}) == "Not measured."


def test_table_of_quantisations(bench: Any, report: dict[str, Any]) -> None:
    pages = bench("pages.programs")
    models = {}
    for kind, ratio in (("Q2_K", 1.0), ("Q8_0", 4.0)):
        part = {**report["decode"]["0"], "speed_ratio": {"median": ratio, "q1": 1.0, "q3": 2.0}}
        part["against"] = {}
        decode = {"decode": {"0": part}, "file_bytes": 9e6, "of": "m as znver3", "kind": kind}
        models[f"m {kind}"] = {**report, **decode}
    lines = pages.quants_table({**models, "other": {}}).splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == [
        "Q8_0", "Q2_K", "geometric mean of 2"
    ]  # fmt: skip
    assert "2.00" in lines[-1]
    assert pages.quants_table({"other": {}}) == "Not measured."
