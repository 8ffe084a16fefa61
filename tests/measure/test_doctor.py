"""doctor: facts of this machine, advice that follows from facts, and the report of both."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from converters.pack_options import PackOptions
from converters.store import prepare
from sparity_edge import Generator
from sparity_edge.cli.commands.doctor import _bytes_of_llama_8b
from sparity_edge.cli.main import main
from sparity_edge.errors import OptionError
from sparity_edge.measure import doctor
from sparity_edge.measure.advice import advice
from sparity_edge.measure.decoding import bytes_of_a_token
from sparity_edge.measure.expected import bytes_of_a_folder
from sparity_edge.system import host

GOOD: dict[str, Any] = {
    "machine": {"threads": 4, "cpu_features": ["sse2", "avx2", "avx512vnni"]},
    "cores": {"physical": 4, "logical": 8, "allowed": 8, "container_quota": None},
    "memory": {
        "total_bytes": 16e9,
        "available_bytes": 12e9,
        "container_limit_bytes": None,
        "swapped_bytes": 0,
        "huge_pages": "madvise",
    },
    "power": {"on_battery": False, "saving": None, "busy_cores": 0.1},
    "bandwidth": {
        "threads": 4,
        "one_thread_bytes_per_second": 20e9,
        "all_threads_bytes_per_second": 50e9,
    },
    "storage": {
        "cache": {"path": "/c", "used_bytes": 0, "free_bytes": 100e9, "writable": True},
        "kernels": {"path": "/k", "used_bytes": 20e6, "writable": True, "compiled": True},
        "leftovers": [],
    },
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """An examination of a few milliseconds."""
    monkeypatch.setattr(doctor, "SECONDS", 0.01)
    monkeypatch.setattr(doctor, "READING", 0.0)
    monkeypatch.setattr(doctor, "LEAST_POOL", 1 << 20)
    monkeypatch.setattr(doctor, "SHARE_OF_MEMORY", psutil.virtual_memory().available >> 22)
    monkeypatch.setattr(host, "LOOK_SECONDS", 0.01)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """write(path below /sys, text), in a folder that stands for /sys."""
    root = tmp_path / "sys"
    monkeypatch.setattr(host, "SYSTEM", root)

    def write(path: str, text: str) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n", encoding="utf-8")

    return write


def test_a_healthy_machine_gets_no_advice() -> None:
    assert advice(GOOD) == []
    unknown = copy.deepcopy(GOOD)
    unknown["cores"] = dict.fromkeys(GOOD["cores"])
    unknown["memory"] |= dict.fromkeys(("swapped_bytes", "huge_pages"))
    unknown["power"] |= dict.fromkeys(("on_battery", "saving"))
    unknown["storage"]["cache"]["free_bytes"] = unknown["bandwidth"] = None
    assert advice(unknown) == []


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("cores", {"allowed": 2}, "2 of 4 cores"),
        ("cores", {"container_quota": 1.5}, "try --threads 1,"),
        ("cores", {"container_quota": 3.9}, "try --threads 3,"),
        ("machine", {"threads": 8}, "--threads 4 is usually faster"),
        ("machine", {"cpu_features": ["sse2", "avx2"]}, "no AVX-512 VNNI"),
        ("machine", {"cpu_features": ["sse2", "avx512vnni"]}, "no AVX2"),
        ("power", {"on_battery": True}, "battery"),
        ("power", {"saving": "scaling_governor powersave"}, "(scaling_governor powersave)"),
        ("power", {"busy_cores": 1.5}, "keep 1.5 of 8 cores busy"),
        ("memory", {"available_bytes": 1e9}, "Only 1.0 GB"),
        ("memory", {"available_bytes": 1e9, "container_limit_bytes": 20e9}, "Only 1.0 GB"),
        ("memory", {"swapped_bytes": 2e9}, "2.0 GB are swapped out"),
        ("memory", {"huge_pages": "never"}, "Large pages"),
        ("bandwidth", {"one_thread_bytes_per_second": 48e9}, "more threads do not make"),
        ("cache", {"free_bytes": 1e9}, "has 1.0 GB left"),
        ("kernels", {"compiled": False}, "not compiled yet"),
        ("kernels", {"compiled": False, "writable": False}, "NUMBA_CACHE_DIR"),
        ("kernels", {"used_bytes": 2e9}, "cache clear"),
    ],
)
def test_advice_follows_from_a_fact(section: str, values: dict[str, Any], words: str) -> None:
    facts = copy.deepcopy(GOOD)
    (facts["storage"] if section in facts["storage"] else facts)[section] |= values
    (sentence,) = advice(facts)
    assert words in sentence
    assert sentence.endswith(".")


def test_a_small_container_is_measured_by_its_own_memory() -> None:
    facts = copy.deepcopy(GOOD)
    facts["memory"] |= {"available_bytes": 1e9, "container_limit_bytes": 2e9}
    assert advice(facts) == []


def test_what_was_measured_beside_other_work_gives_no_advice() -> None:
    facts = copy.deepcopy(GOOD)
    facts["bandwidth"]["one_thread_bytes_per_second"] = 50e9
    facts["power"]["busy_cores"] = 2.0
    (sentence,) = advice(facts)
    assert "Other processes" in sentence


def test_other_processors_are_not_told_of_avx(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = copy.deepcopy(GOOD)
    facts["machine"]["cpu_features"] = ["neon", "dotprod"]
    assert advice(facts) == []
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    assert "NUMBA_CPU_NAME is set" in advice(facts)[0]


def test_huge_pages_and_power_are_read(system: Callable[[str, str], None]) -> None:
    assert host.huge_pages() is None
    system("kernel/mm/transparent_hugepage/enabled", "always madvise [never]")
    assert host.huge_pages() == "never"
    policy = "devices/system/cpu/cpufreq/policy0/"
    assert host._saving() is None
    system(policy + "scaling_governor", "powersave")
    system(policy + "scaling_driver", "acpi-cpufreq")
    assert host._saving() == "scaling_governor powersave"
    system(policy + "scaling_driver", "intel_pstate")  # its powersave is everybody's default
    assert host._saving() is None
    system(policy + "energy_performance_preference", "power")
    assert host._saving() == "energy_performance_preference power"


def test_limits_of_containers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.setattr(host, "CONTROL_GROUPS", tmp_path)
    real = host._text
    monkeypatch.setattr(
        host, "_text", lambda path: "1:x:/y\n0::/a/b" if path.name == "cgroup" else real(path)
    )
    assert host._quota() is None
    (inside / "cpu.max").write_text("max 100000\n")
    assert host._quota() is None
    (inside.parent / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert host._quota() == 1.5
    (tmp_path / "memory.max").write_text("1000\n")
    (inside / "memory.max").write_text("max\n")
    assert host.memory()["container_limit_bytes"] == 1000


def test_a_folder_is_asked_for_bytes_and_whether_it_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"12345")
    here = host.folder(tmp_path)
    assert (here["used_bytes"], here["writable"]) == (5, True)
    assert here["free_bytes"] > 0
    absent = tmp_path / "not" / "there"
    assert host.folder(absent) == {**here, "path": str(absent), "used_bytes": 0} | {
        "free_bytes": host.folder(absent)["free_bytes"]
    }
    assert not absent.parent.exists()
    assert not host.folder(tmp_path / "deep" / "file" / "below")["writable"]


def test_expected_bytes_are_those_of_the_loaded_model(
    checkpoint: Callable[[str], Path],
) -> None:
    for case in ("llama_gqa", "llama_untied"):
        path = prepare(str(checkpoint(case)), PackOptions("int8"))
        with Generator.load(path) as generator:
            assert bytes_of_a_folder(path) == bytes_of_a_token(generator.loaded.model, 0) + (
                4 * sum(shape[0] for shape in _vectors(generator))
            )
    # 7.5 billion weights in blocks and head; five bits in blocks, 8.5 in the head.
    assert _bytes_of_llama_8b("int4") == pytest.approx(6.98e9 * 5 / 8 + 0.525e9 * 8.5 / 8, rel=0.01)


def _vectors(generator: Generator) -> list[tuple[int, ...]]:
    return [shape for shape in generator.config.tensor_shapes().values() if len(shape) == 1]


@pytest.mark.usefixtures("short")
def test_the_report_is_json_alone_on_stdout(
    capsys: pytest.CaptureFixture[str], checkpoint: Callable[[str], Path]
) -> None:
    model = str(checkpoint("llama_gqa"))
    prepare(model, PackOptions())
    assert main(["doctor", model, "--json", "--threads", "2"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert err == ""
    assert list(facts) == [
        "version", "machine", "kernels", "cores", "memory", "power", "storage", "problems",
        "bandwidth", "models", "advice", "gains",
    ]  # fmt: skip
    assert facts["machine"]["threads"] == 2
    measured = facts["bandwidth"]
    assert 0 < measured["slowest_bytes_per_second"] <= measured["all_threads_bytes_per_second"]
    assert [each["packed"] for each in facts["models"]] == [True, False]
    assert all(each["tokens_per_second_at_most"] > 0 for each in facts["models"])
    assert facts["problems"] == []


@pytest.mark.usefixtures("short")
def test_the_report_has_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "no such model", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    for title in ("Processor", "Threads", "Memory", "Expected speed", "Storage", "Versions"):
        assert f"\n{title}\n" in f"\n{out}"
    assert "Llama 3 8B in int4" in out
    assert "no such model" not in out
    assert max(len(line) for line in out.splitlines()) <= 100


@pytest.mark.usefixtures("short")
def test_a_cache_that_cannot_be_written_is_reported_and_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "not measured" in out
    assert "What keeps models from running" in out
    assert err.startswith("sparity-edge: The cache folder ")
    assert err.count("\n") == 1


def test_a_compiler_that_is_switched_off_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert main(["doctor", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["bandwidth"] is None
    assert err == f"sparity-edge: {json.loads(out)['problems'][0]}\n"
    with pytest.raises(OptionError, match="NUMBA_DISABLE_JIT"):
        Generator.load("nothing")


def test_little_memory_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_POOL", 1 << 60)
    facts = {"memory": {"available_bytes": 1 << 30}}
    assert doctor._bandwidth(2, facts, lambda *_: None) is None


@pytest.mark.parametrize(
    ("threads", "why"),
    [
        ("0", "is not a whole number"),
        ("-1", "is not a whole number"),
        ("100000", "would wait for each other"),
    ],
)
def test_a_wrong_number_of_threads_is_refused_first(
    threads: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--threads", threads]) == 1
    assert f"threads={threads} {why}" in capsys.readouterr().err
