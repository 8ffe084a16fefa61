"""A Generator in rough hands: dropped streams, forks, clocks, many loads, too little memory."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from sparity_edge import Generator, SamplingParams
from sparity_edge.errors import ResourceError, SparityError
from sparity_edge.packed import folder as packed_folder
from sparity_edge.system import headroom

SHORT = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


@pytest.fixture
def generator(planned: Path) -> Generator:
    return Generator.load(planned, threads=2)


def test_a_stream_that_is_dropped_leaves_the_generator_usable(generator: Generator) -> None:
    expected = generator.generate("The river", SHORT).text
    steps = generator.stream("The river", SHORT)
    next(steps)
    del steps
    assert generator.generate("The river", SHORT).text == expected
    generator.close()


def test_a_clock_that_goes_backwards_changes_nothing(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, now = generator.generate("The river", SHORT).text, time.time
    calls = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: now() - 1000.0 * next(calls))
    completion = generator.generate("The river", SHORT)
    assert completion.text == expected
    assert completion.stats.decode_seconds > 0
    generator.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_is_told_to_load_its_own(planned: Path, generator: Generator) -> None:
    expected = generator.generate("The river", SHORT).text
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=answer_twice, args=(theirs, generator, planned), daemon=True)
    child.start()
    assert mine.poll(60)
    assert "before the process was forked" in mine.recv()
    assert mine.poll(60)
    assert mine.recv() == expected
    child.join(10)
    assert generator.generate("The river", SHORT).text == expected
    generator.close()


def answer_twice(connection: Connection, generator: Generator, path: Path) -> None:
    try:
        connection.send(generator.generate("The river", SHORT).text)
    except SparityError as error:
        connection.send(str(error))
    with Generator.load(path, threads=2) as own:
        connection.send(own.generate("The river", SHORT).text)


def test_a_model_beyond_the_memory_is_refused_before_it_is_read(
    planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headroom, "limits", lambda: [(1000, "this machine", "buy memory")])
    monkeypatch.setattr(packed_folder, "load_shard", None)
    with pytest.raises(ResourceError, match=r"the model takes 0\.\d MB of memory and this machine"):
        Generator.load(planned)


def test_loads_and_closes_leave_nothing_behind(planned: Path) -> None:
    def once() -> None:
        with Generator.load(planned, threads=2) as generator:
            generator.generate("The river", SHORT)

    for _ in range(10):
        once()
    before, memory = held(), psutil.Process().memory_info().rss
    for _ in range(30):
        once()
    assert held() <= before
    assert psutil.Process().memory_info().rss < memory + 8e6


def held() -> tuple[int, int]:
    """Threads and open files of this process, once what was closed has ended."""
    gc.collect()
    time.sleep(0.2)
    process = psutil.Process()
    return process.num_threads(), len(process.open_files())
