"""The team of threads: order, interruption, several teams, going home."""

from __future__ import annotations

import _thread
import gc
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from sparity_edge.arrays import Floats, padded, rows
from sparity_edge.kernels.operations import Operations
from sparity_edge.kernels.program.machine import ThreadedMachine


def chain(machine: ThreadedMachine, length: int, size: int = 640) -> tuple[Floats, Callable]:
    """A program whose every operation needs the one before: x is scaled by 1 + 1/size each time."""
    x, weight = rows(1, size), padded(np.full(size, 1.25))
    x[:] = 1

    def forward(ops: Operations) -> None:
        for _ in range(length):
            ops.rmsnorm(x, weight, 0.0, x)

    return x, machine.prepare(forward)


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
@pytest.mark.parametrize("patient", [False, True])
def test_operations_run_in_order(threads: int, patient: bool) -> None:
    machine = ThreadedMachine(threads)
    for _ in range(50):
        x, run = chain(machine, 20)
        run(patient)
        np.testing.assert_allclose(x, 1.25, rtol=1e-6)
    machine.close()


def test_a_program_runs_again_and_again() -> None:
    machine = ThreadedMachine(3)
    _, run = chain(machine, 30)
    for turn in range(2000):
        run(turn % 3 == 0)
    machine.close()


def test_several_teams_at_once() -> None:
    failures = []

    def work() -> None:
        machine = ThreadedMachine(2)
        x, run = chain(machine, 20)
        for _ in range(200):
            run(False)
        if not np.allclose(x, 1.25):
            failures.append(x)
        machine.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures


def test_callers_take_turns() -> None:
    machine = ThreadedMachine(2)
    programs = [chain(machine, 20) for _ in range(4)]

    def work(run: Callable) -> None:
        for _ in range(100):
            run(False)

    threads = [threading.Thread(target=work, args=(run,)) for _, run in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    machine.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_patient_run_hears_ctrl_c_at_once(threads: int) -> None:
    # Hypothesis looks on when garbage is collected, and what is raised in there is lost.
    gc.disable()
    machine = ThreadedMachine(threads)
    _, run = chain(machine, 20000, size=1 << 18)  # some seconds
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(True)
    finally:
        gc.enable()
    assert time.monotonic() - started < 2
    x, again = chain(machine, 3)
    again(False)
    np.testing.assert_allclose(x, 1.25, rtol=1e-6)
    machine.close()


def goes_home(thread: threading.Thread) -> bool:
    thread.join(10)
    return not thread.is_alive()


def test_threads_go_home() -> None:
    before = set(threading.enumerate())  # of machines that tests before this one closed, perhaps
    machine = ThreadedMachine(4)
    _, run = chain(machine, 2)
    run(True)
    own = set(threading.enumerate()) - before
    assert len(own) == 4
    machine.close()
    assert all(goes_home(thread) for thread in own)


def test_threads_go_home_when_the_machine_is_forgotten() -> None:
    before = set(threading.enumerate())
    machine = ThreadedMachine(2)
    x, run = chain(machine, 2)
    run(False)
    own = set(threading.enumerate()) - before
    assert own
    del machine, run, x
    assert all(goes_home(thread) for thread in own)
