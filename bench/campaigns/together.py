"""The campaign of many at once: processes and threads that pack, load, answer and close one model.

A fault: another answer than alone, an exception, a crash, a hang, or hidden files left behind.
Threads that share one Generator may be refused in a sentence; their answers must be right.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from campaigns.actions import start
from campaigns.targets import SHORT, Generator, tiny

from sparity_edge.errors import SparityError

PROCESSES, THREADS = 4, 2
HANG_SECONDS = 120.0


def run(folder: Path, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """So many users of one model, eight at a time.

    Args:
        folder: an empty folder; the pack cache is put there, and emptied every other round.
        count: how many.
        say: told of each fault.
    """
    source, cache = tiny.build(folder / "source", "llama_gqa"), folder / "cache"
    os.environ["SPARITY_EDGE_CACHE"] = str(cache)
    with Generator.load(source, threads=1) as alone:
        expected = alone.generate("The river", SHORT).text
    faults: list[str] = []
    rounds = -(-count // (PROCESSES * THREADS))
    for number in range(rounds):
        if number % 2 == 0:
            shutil.rmtree(cache, ignore_errors=True)
        use = _share_one if number % 4 == 3 else _one_each
        users = [start(partial(use, source, expected)) for _ in range(PROCESSES)]
        wrong = [f"round {number}: {each}" for user in users if (each := _outcome(*user))]
        wrong += [f"round {number}: {path.name} is left" for path in cache.rglob(".*.partial-*")]
        faults += wrong
        for each in wrong:
            say(each)
    tried = rounds * PROCESSES * THREADS
    return {"tried": tried, "survived": tried - len(faults), "faults": faults}


def _outcome(process: Any, answer: Any) -> str:
    try:
        wrong = str(answer.recv()[1]) if answer.poll(HANG_SECONDS) else "a hang"
    except (EOFError, OSError):
        process.join()
        wrong = f"crash, exit code {process.exitcode}"
    process.kill()
    process.join()
    return wrong


def _one_each(source: Path, expected: str) -> None:
    """Threads of a process, each with a Generator of its own."""

    def use() -> None:
        with Generator.load(source, threads=1) as generator:
            assert generator.generate("The river", SHORT).text == expected

    _in_threads(use)


def _share_one(source: Path, expected: str) -> None:
    """Threads of a process that use one Generator."""
    with Generator.load(source, threads=2) as generator:

        def use() -> None:
            try:
                text = generator.generate("The river", SHORT).text
            except SparityError:
                return  # told that another call has begun
            assert text == expected

        _in_threads(use)
        assert generator.generate("The river", SHORT).text == expected


def _in_threads(use: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            use()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
