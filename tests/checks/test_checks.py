"""The switch SPARITY_EDGE_CHECKS: what leads outside is told, what is healthy is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparity_edge.arrays import ALIGNMENT, TAIL, aligned_empty, aligned_zeros, rows
from sparity_edge.kernels import kernel
from sparity_edge.kernels.checks import CHECKED, FIRST_REGION, REGIONS, VARIABLE
from sparity_edge.kernels.decode.elementwise import rmsnorm
from sparity_edge.kernels.program.operands import Operands, region_of

SCRIPT = Path(__file__).with_name("faults.py")
LIMITS = {"embed": "token id", "append": "position", "attention": "position"}


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """What each fault of faults.py raised under the switch."""
    tests = SCRIPT.parent.parent
    path = os.pathsep.join([str(tests), str(tests / "kernels"), *sys.path])
    env = {**os.environ, VARIABLE: "1", "PYTHONPATH": path}
    run = subprocess.run([sys.executable, SCRIPT], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found: dict[str, str] = json.loads(run.stdout)
    return found


def test_healthy_operations_pass(told: dict[str, str]) -> None:
    assert {each: text for each, text in told.items() if each.endswith("healthy") and text} == {}


def test_every_fault_is_told_with_kernel_and_bound(told: dict[str, str]) -> None:
    faults = {name: text for name, text in told.items() if not name.endswith("healthy")}
    assert len(faults) == 3 + 3 * 4 + 3 * 4 + 3
    for name, text in faults.items():
        assert text.startswith("Operation 0, "), (name, text)
    for name, kind in LIMITS.items():
        texts = [text for each, text in faults.items() if each.startswith(name)]
        assert all(kind in text and "where 0 to " in text for text in texts), texts


def test_the_words_of_a_fault(told: dict[str, str]) -> None:
    assert told["embed 96"] == (
        "Operation 0, embed, asked for token id 96, where 0 to 95 are allowed."
    )
    assert told["spvmm channel"] == (
        "Operation 0, spvmm, asked for channel of an active list 96, where 0 to 95 are allowed."
    )
    assert "length of an active list 1099511627776" in told["ffn length"]
    assert "channels left out between two of an active list -1" in told["vmmsp twice"]
    assert "append, asked for position 8, where 0 to 7 are allowed" in told["append 8"]
    assert "bytes into table, which has 1024" in told["rope 8"]
    assert "bytes into weight, which has" in told["short weight"]
    assert "bytes into out, which has" in told["short out"]
    assert "8 bytes into tallies, which has 8" in told["short tallies"]


def cache_with(**variables: str) -> str:
    """The name of the kernel cache in a process with these variables."""
    script = "from sparity_edge.kernels import kernel; print(kernel.version_of_kernels())"
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_checked_kernels_have_a_cache_of_their_own() -> None:
    names = {value: cache_with(**{VARIABLE: value}) for value in ("", "0", "1")}
    assert names[""] == names["0"] != names["1"]
    assert kernel.version_of_kernels() == names["1" if CHECKED else "0"]


def test_each_cpu_has_a_cache_of_its_own() -> None:
    """Numba's index of a file loses or mixes up entries that two CPUs write at once."""
    name, features = "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"
    plain = cache_with(**{name: "generic", features: ""})
    assert plain == cache_with(**{name: "generic", features: ""})
    assert plain != cache_with(**{name: "generic", features: "+sse3"})


@pytest.mark.parametrize("nbytes", [1, 64, 4096, 1 << 20, (1 << 20) + 4032])
def test_whole_vectors_may_be_read_behind_an_array(nbytes: int) -> None:
    for make in (aligned_empty, aligned_zeros):
        array = make(nbytes)
        base = array.base
        assert isinstance(base, np.ndarray)
        assert array.ctypes.data % ALIGNMENT == 0
        assert array.ctypes.data + nbytes + TAIL <= base.ctypes.data + base.nbytes


def test_regions_of_arrays() -> None:
    x = rows(3, 100)  # filled up to 128 numbers
    start = x.ctypes.data
    assert region_of(x) == (start, start + 4 * 3 * 128, start + 4 * 3 * 128 + TAIL)
    assert region_of(x[1:2]) == (start + 512, start + 1024, start + 1024 + TAIL)
    ids = np.zeros(5, dtype=np.int64)
    assert region_of(ids) == (ids.ctypes.data, ids.ctypes.data + 40, ids.ctypes.data + 40)
    assert region_of(ids[2:3])[1] == ids.ctypes.data + 24
    assert region_of(ids[:0])[0] == region_of(ids[:0])[2]


def test_words_that_lead_into_an_array_are_its_memory() -> None:
    operands, x = Operands(), rows(4, 128)
    operands.note(x)
    middle = int(x[2].ctypes.data)
    [table] = operands.tables([(rmsnorm, {"sums": middle, "size": 17})])
    assert table[REGIONS] == 1
    assert tuple(table[FIRST_REGION:]) == region_of(x)
