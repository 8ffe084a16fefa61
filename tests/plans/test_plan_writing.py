"""Plans written while something fails, is killed, or writes at the same time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packing import contents
from plan_files import FILE, NAME, changed

from sparity_edge.errors import FormatError
from sparity_edge.model.opening import open_folder, open_packed, verify_packed
from sparity_edge.packed.manifest import LOCK_FILE
from sparity_edge.packed.writer import PackedWriter
from sparity_edge.plans import plan_file
from sparity_edge.plans.plan_file import add_plan, plan_names, read_plan, remove_plan
from sparity_edge.system.leftovers import partial_name

KILLED = textwrap.dedent(
    """
    import os, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from sparity_edge.plans import plan_file

    def stop(path, blocks):
        if path.name == {file!r}:
            return original(path, stop_within(blocks) if {step!r} == "plan" else blocks)
        print("there", flush=True)
        os.kill(os.getpid(), 9)

    def stop_within(blocks):
        yield next(iter(blocks))
        os.kill(os.getpid(), 9)

    original, plan_file.replace_file = plan_file.replace_file, stop
    folder = Path({folder!r})
    from sparity_edge.model.opening import open_folder
    family = plan_file.read_plan(open_folder(folder), "by-hand")
    import dataclasses
    newer = dataclasses.replace(family, name={name!r}, method="newer")
    plan_file.add_plan(open_folder(folder), newer)
    """
)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("step", ["plan", "manifest"])
@pytest.mark.parametrize("name", ["auto", NAME])
def test_a_killed_run_leaves_a_usable_folder(packed: Path, step: str, name: str) -> None:
    code = KILLED.format(
        tests=str(Path(__file__).resolve().parents[1]),
        file=f"plan-{name}.safetensors",
        step=step,
        folder=str(packed),
        name=name,
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], check=False, env=env, timeout=60)
    assert run.returncode == -signal.SIGKILL
    open_packed(packed)
    assert plan_names(packed) == [NAME]
    newer = name == NAME and step == "manifest"
    assert read_plan(open_folder(packed), NAME).method == (
        "newer" if newer else "numbers from a fixed seed"
    )
    add_plan(open_folder(packed), changed(packed, name=name))
    verify_packed(packed)
    hidden = {path.name for path in packed.iterdir() if path.name.startswith(".")}
    assert hidden <= {LOCK_FILE}


def test_what_a_killed_run_left_does_not_keep_a_folder_from_being_replaced(packed: Path) -> None:
    host = partial_name("x").split("-")[1]
    (packed / f".{FILE}.partial-{host}-{2**22 + 1}-00000000").touch()
    tensors: dict[str, Any] = {"v": (1,)}
    with PackedWriter(packed, tensors, source="s", options={}, force=True) as writer:
        writer.write("v", np.ones(1, dtype=np.float32))
    assert plan_names(packed) == []


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_failing_disk_is_one_sentence(
    packed: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*arguments: Any, **_: Any) -> Any:
        if call == "fsync" or "x" in str(arguments[1:2]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    made, before, original = changed(packed, method="newer"), contents(packed), Path.open
    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    with pytest.raises(FormatError, match="cannot be written: the disk is full"):
        add_plan(open_folder(packed), made)
    monkeypatch.undo()
    assert contents(packed) == before


# Between reading and writing the list there is time for others to do the same.
ADDER = """
import dataclasses, sys, time
from pathlib import Path
from sparity_edge.model.opening import open_folder
from sparity_edge.plans import plan_file
from sparity_edge.plans.plan_file import add_plan, read_plan
read_now = plan_file.read_manifest
def read_slowly(folder):
    manifest = read_now(folder)
    time.sleep(0.01)
    return manifest
plan_file.read_manifest = read_slowly
folder = Path({folder!r})
plan = read_plan(open_folder(folder), "by-hand")
print("ready", flush=True)
sys.stdin.readline()
for number in range(4):
    add_plan(open_folder(folder), dataclasses.replace(plan, name=f"{name}-{{number}}"))
    add_plan(open_folder(folder), dataclasses.replace(plan, name="shared", method="{name}" * 100))
"""


def test_processes_that_add_plans_at_once_lose_none(packed: Path) -> None:
    names = ("a", "b", "c")
    adders = [
        subprocess.Popen(
            [sys.executable, "-c", ADDER.format(folder=str(packed), name=name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for name in names
    ]
    for adder in adders:
        assert adder.stdout
        assert adder.stdout.readline() == "ready\n"
    for adder in adders:
        assert adder.stdin
        adder.stdin.write("\n")
        adder.stdin.flush()
    for adder in adders:
        adder.communicate(timeout=60)
    assert [adder.returncode for adder in adders] == [0, 0, 0]
    added = {f"{name}-{number}" for name in names for number in range(4)}
    assert set(plan_names(packed)) == {NAME, "shared", *added}
    verify_packed(packed)


def test_waiting_for_another_process_ends(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    monkeypatch.setattr(plan_file, "LOCK_SECONDS", 0.1)
    plan = changed(packed, name="late")
    with filelock.FileLock(packed / LOCK_FILE):
        with pytest.raises(FormatError, match="by another process"):
            add_plan(open_folder(packed), plan)
        with pytest.raises(FormatError, match="by another process"):
            remove_plan(packed, NAME)
    assert plan_names(packed) == [NAME]
    add_plan(open_folder(packed), plan)
    assert plan_names(packed) == [NAME, "late"]
