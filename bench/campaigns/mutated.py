"""The campaign of damaged files: each is read in a worker process, which may crash or hang.

A fault is a crash, a hang, a slow refusal, an exception that is no `SparityError`, and a message
that is no short sentence. Each fault names kind and number of its case, which make it again.
"""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HANG_SECONDS = 30.0
SLOW_SECONDS = 4.0  # of processor time: the machine may have other work
LONGEST_MESSAGE = 300  # characters, beside the path of the file
ADDRESS_SPACE = 16 << 30  # bytes: a case that asks for more gets a MemoryError, not the machine


def serve(connection: Connection, folder: str) -> None:
    """In a worker process: read cases as they come and answer what became of each."""
    from campaigns.targets import Bench

    if hasattr(resource, "RLIMIT_AS"):
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    bench = Bench(Path(folder))
    connection.send("ready")
    while (case := connection.recv()) is not None:
        connection.send(
            judge(lambda kind=case[0], number=case[1]: bench.read(kind, number), folder)
        )


def judge(read: Callable[[], object], folder: str = "") -> tuple[str, str]:
    """(outcome, what is wrong) of reading something: accepted, refused or a fault."""
    from sparity_edge.errors import SparityError

    started = time.process_time()
    try:
        read()
        outcome, wrong = "accepted", ""
    except SparityError as error:
        outcome, wrong = "refused", fault_of(str(error).replace(folder, ""))
    except Exception as error:
        return "fault", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    seconds = time.process_time() - started
    if not wrong and seconds > SLOW_SECONDS:
        wrong = f"slow: {seconds:.1f} s"
    return ("fault", wrong) if wrong else (outcome, "")


def fault_of(message: str) -> str:
    """What is wrong with a message, or nothing."""
    if len(message.splitlines()) != 1 or not message.isprintable():
        return f"message of several lines: {message[:200]!r}"
    if len(message) > LONGEST_MESSAGE:
        return f"message of {len(message)} characters: {message[:200]}"
    return ""


class Worker:
    """A process that reads cases, started anew whenever one has killed it."""

    def __init__(self) -> None:
        self._start()

    def __call__(self, kind: str, number: int) -> tuple[str, str]:
        """What became of a case."""
        try:
            self._connection.send((kind, number))
            if self._connection.poll(HANG_SECONDS):
                outcome: tuple[str, str] = self._connection.recv()
                return outcome
            wrong = f"hang of {HANG_SECONDS:.0f} s"
        except (EOFError, OSError):
            self._process.join()
            wrong = f"crash, exit code {self._process.exitcode}"
        self.close()
        self._start()
        return "fault", wrong

    def _start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="robust-")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._folder), daemon=True)
        self._process.start()
        theirs.close()
        assert self._connection.recv() == "ready"

    def close(self) -> None:
        """End the process and remove its files."""
        self._process.kill()
        self._process.join()
        self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def cases(count: int, first: int = 0) -> Iterator[tuple[str, int]]:
    """(kind, number) of so many cases, all kinds in turn as often as their weights say."""
    from campaigns.targets import TARGETS

    turn = [
        kind
        for share in range(max(target.weight for target in TARGETS.values()))
        for kind, target in TARGETS.items()
        if share < target.weight
    ]
    endless = ((kind, number) for number in itertools.count(first) for kind in turn)
    numbers: Counter[str] = Counter()
    for kind, _ in itertools.islice(endless, count):
        yield kind, first + numbers[kind]
        numbers[kind] += 1


def run(count: int, first: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Read so many damaged files.

    Args:
        count: how many.
        first: the number of the first case of each kind.
        say: told of each fault, and now and then of how far it is.

    Returns:
        Counts and faults.
    """
    worker, counts = Worker(), {}
    faults: list[dict[str, Any]] = []
    try:
        for done, (kind, number) in enumerate(cases(count, first), 1):
            outcome, wrong = worker(kind, number)
            counts.setdefault(kind, Counter())[outcome] += 1
            if wrong:
                faults.append({"kind": kind, "number": number, "fault": wrong})
                say(f"{kind} {number}: {wrong}")
            if done % 500 == 0:
                say(f"{done} damaged files read, {len(faults)} faults")
    finally:
        worker.close()
    kinds = {kind: dict(sorted(count.items())) for kind, count in sorted(counts.items())}
    return {"tried": count, "survived": count - len(faults), "kinds": kinds, "faults": faults}
