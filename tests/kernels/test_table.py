"""Every operation of the table against its NumPy twin, with any number of threads.

The sizes at which single kernels change their ways are in the tests beside this one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import bound, matrix_of
from cases import CASES, OF_ACTIVATIONS, Setting, operations, settings

from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.operations import Operations
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.program.program import Program
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.kernels.reference.reference import Reference
from sparity_edge.kernels.reference.unpack import unpack
from sparity_edge.kernels.table import TABLE, When, kernels_at_start, kernels_of_batches

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ReferenceMachine()
ALL = list(settings())
QUANTIZED = ("linear", "neurons", "vmmsp")


@pytest.fixture(scope="module")
def machines() -> Iterator[list[ThreadedMachine]]:
    made = [ThreadedMachine(threads) for threads in (1, 2, 5)]
    yield made
    for machine in made:
        machine.close()


def results(machine: Any, at: Setting) -> list[Any]:
    """What an operation leaves in its arrays."""
    forward, arrays = CASES[at.operation](machine, at)
    machine.prepare(forward, at.decoding)(False)
    return [np.array(each) for each in arrays]


def same_with_any_threads(machines: list[ThreadedMachine], at: Setting) -> list[Any]:
    first, *others = [results(machine, at) for machine in machines]
    for other in others:
        for mine, yours in zip(first, other, strict=True):
            np.testing.assert_array_equal(mine, yours)
    return first


def allowed(at: Setting, expected: Any) -> Any:
    """How far a result may be off; see `bound`."""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1e-30)
    if at.operation not in QUANTIZED or at.form[0] in ("f32", "bf16"):
        return 1e-5 * max(1.0, largest)
    if at.operation == "neurons":  # activations are rounded twice
        return 1e-4 * max(1.0, largest)
    weights = unpack(matrix_of(at.form, at.orientation, at.size, 4))
    off = bound(at.x(1, at.size[1]), weights)
    return off + 1e-6 * largest


def name(at: Setting) -> str:
    return str(at)


@pytest.mark.parametrize("at", ALL, ids=name)
def test_kernels_give_what_their_twin_gives(machines: list[ThreadedMachine], at: Setting) -> None:
    ours = same_with_any_threads(machines, at)
    for mine, expected in zip(ours, results(REFERENCE, at), strict=True):
        assert mine.shape == expected.shape
        assert np.all(np.abs(mine - expected) <= allowed(at, expected))


ONE_SIZE = [at for at in ALL if at.size in {(33, 70), (33, 768), (1, 334)}]
WHOLE = [at for at in ONE_SIZE if at.density > 0 and at.operation in (*QUANTIZED, *OF_ACTIVATIONS)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", WHOLE, ids=name)
def test_what_is_not_finite_stays_with_its_token(
    machines: list[ThreadedMachine], at: Setting, value: float
) -> None:
    ours = same_with_any_threads(machines, replace(at, value=value))
    with np.errstate(invalid="ignore"):
        expected = results(REFERENCE, replace(at, value=value))
    if at.operation in QUANTIZED:
        assert np.isfinite(ours[0][:-1]).all()
        if at.operation != "vmmsp":
            assert not np.isfinite(ours[0][-1]).any()
        return
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(np.isfinite(mine), np.isfinite(theirs))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("at", [at for at in WHOLE if at.operation == "linear"], ids=name)
def test_extreme_activations(machines: list[ThreadedMachine], at: Setting, scale: float) -> None:
    at = replace(at, scale=scale, density=1.0)
    ours, expected = same_with_any_threads(machines, at)[0], results(REFERENCE, at)[0]
    assert np.all(np.abs(ours - expected) <= 1e-5 + 1e-4 * np.abs(expected).max())


# --- the table itself -------------------------------------------------------------------------


def test_every_kernel_has_one_row() -> None:
    declared: dict[str, Kernel] = {}
    for path in (ROOT / "sparity_edge" / "kernels").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for each in vars(importlib.import_module(module)).values():
            if isinstance(each, Kernel):
                declared[each.name] = each
    rows = [entry.kernel for entry in TABLE]
    assert len(rows) == len({*rows})
    assert set(rows) == set(declared.values())


def test_every_operation_has_a_twin_and_a_case() -> None:
    assert operations() == set(CASES)
    for operation in operations():
        assert hasattr(Program, operation)
        assert hasattr(Reference, operation)
    assert {each for each in dir(Operations) if not each.startswith("_")} - operations() == {
        "together"
    }


@pytest.mark.parametrize("decoding", [False, True])
@pytest.mark.parametrize("at", ONE_SIZE, ids=name)
def test_what_is_compiled_beforehand_is_all_that_is_recorded(at: Setting, decoding: bool) -> None:
    at = replace(at, decoding=decoding)
    machine = ThreadedMachine(1)
    forward, _ = CASES[at.operation](machine, at)
    known = {*kernels_at_start(machine._matrices)}
    if at.tokens > 1 and decoding:
        known |= {*kernels_of_batches(machine._matrices)}
    recorded = _recorded(forward, decoding)
    later = {entry.kernel for entry in TABLE if entry.when in (When.USE, When.SCREEN)}
    if at.operation in OF_ACTIVATIONS:  # where no matrix can be skipped nothing is selected
        later |= {entry.kernel for entry in TABLE if entry.when in (When.SPARSE, When.BATCH)}
    assert recorded <= known | later
    machine.close()


def _recorded(forward: Any, decoding: bool) -> set[Kernel]:
    from sparity_edge.kernels.program.recorder import Recorder

    recorder = Recorder(1)
    forward(Program(recorder, decoding))
    return {record.kernel for record in recorder.records}


def test_the_page_of_kernels_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs"), *sys.path])
    make_kernels = importlib.import_module("make_kernels")
    page = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    assert page == make_kernels.render(), "run python docs/make_kernels.py"
