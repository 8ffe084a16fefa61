"""The campaigns of killed writers and of full disks, over the actions of actions.py.

A fault: something is there half, a process that failed did not say so in one sentence, or hidden
files are left once the next run in that folder is over.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from campaigns.actions import NAMES, Actions, duration, finish, start


def killed(folder: Path, count: int, first: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Kill so many writers, each at a random moment.

    Args:
        folder: an empty folder.
        count: how many.
        first: the number of the first; what is random follows from it.
        say: told of each fault.
    """
    actions = Actions(folder)
    usual = {name: duration(partial(actions.act, name, 0)) for name in NAMES}
    faults: list[str] = []
    in_time = 0
    for number in range(first, first + count):
        name, random = NAMES[number % len(NAMES)], Random(f"kill {number}")
        old = actions.version[name]
        process, _ = start(partial(actions.act, name, old + 1))
        time.sleep(1.1 * usual[name] * random.random())
        in_time += process.is_alive()
        process.kill()
        process.join()
        wrong = actions.fault(name, old, old + 1) or _run_again(actions, name, old + 2)
        if wrong:
            faults.append(f"{number}: {wrong}")
            say(faults[-1])
    return {**_counts(count, faults), "killed_while_writing": in_time}


def full_disk(folder: Path, count: int, first: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Let the disk be full for so many writers; arguments as of `killed`."""
    actions = Actions(folder)
    faults: list[str] = []
    refused = 0
    for number in range(first, first + count):
        name, random = NAMES[number % len(NAMES)], Random(f"disk {number}")
        old = actions.version[name]
        outcome, wrong = finish(partial(_on_full_disk, actions, name, old + 1, random))
        refused += outcome == "refused"
        if outcome == "accepted":
            actions.version[name] = old + 1
        if not wrong and (left := actions.leftovers()):
            wrong = f"{name}: {left[0]} is left"
        wrong = wrong or actions.fault(name, old, old + 1) or _run_again(actions, name, old + 2)
        if wrong:
            faults.append(f"{number}: {wrong}")
            say(faults[-1])
    return {**_counts(count, faults), "refused": refused}


def _run_again(actions: Actions, name: str, version: int) -> str:
    outcome, wrong = finish(partial(actions.act, name, version))
    actions.version[name] = version
    if outcome != "accepted":
        return f"{name}: the next run is {outcome}: {wrong}"
    if left := actions.leftovers():
        return f"{name}: {left[0]} is left after the next run"
    return actions.fault(name, version, version)


def _on_full_disk(actions: Actions, name: str, version: int, random: Random) -> None:
    """In a process of its own: act where the disk takes only so much."""
    if random.random() < 0.5:
        _limit_files(random.choice((0, 1, 100, 1000, 10_000, 100_000, 200_000)))
    else:
        _fail_at(random.randrange(8))
    actions.act(name, version)


def _limit_files(size: int) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _fail_at(call: int) -> None:
    """Have a call that writes to disk say that the disk is full, and all calls after it."""
    calls = iter(range(10**9))

    def full(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if next(calls) >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments, **named)

    for owner, name in ((os, "fsync"), (os, "mkdir"), (Path, "mkdir")):
        setattr(owner, name, _method(partial(full, getattr(owner, name))))


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A partial as a plain function, which a class binds."""
    return lambda *arguments, **named: function(*arguments, **named)


def _counts(count: int, faults: list[str]) -> dict[str, Any]:
    return {"tried": count, "survived": count - len(faults), "faults": faults}
