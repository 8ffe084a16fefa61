"""Temporary files and folders of ended processes: found, removed, and never while one lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparity_edge.system.atomic import replace_file, temporary_folder
from sparity_edge.system.leftovers import (
    former_name,
    held,
    is_leftover,
    leftovers,
    partial_name,
    remove_leftovers,
)

GONE = 2**22 + 1  # beyond every process id of Linux
posix = pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX")


def dead(name: str) -> str:
    """The name that a process which is gone gave."""
    return partial_name(name).replace(f"-{os.getpid()}-", f"-{GONE}-")


def test_what_counts_as_left_behind(tmp_path: Path) -> None:
    old_form = f".x.partial-{partial_name('x').split('-')[1]}-{GONE}-00000000"
    names = {
        partial_name("x"): False,
        dead("x"): True,
        old_form: True,
        ".x.partial-00000000-1-00000000": False,  # another machine's, and young
        ".x.partial-notes": False,
        dead("x").lstrip("."): False,
    }
    for name in names:
        (tmp_path / name).mkdir()
    assert {name: is_leftover(tmp_path / name) for name in names} == names
    foreign, old = tmp_path / ".x.partial-00000000-1-00000000", time.time() - 48 * 3600
    os.utime(foreign, (old, old))
    assert is_leftover(foreign)


def test_a_later_process_of_the_same_id_is_another(tmp_path: Path) -> None:
    parts = partial_name("x").split("-")
    assert int(parts[3]) > 0
    parts[3] = str(int(parts[3]) - 1000)
    (tmp_path / "-".join(parts)).touch()
    assert is_leftover(tmp_path / "-".join(parts))


@posix
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_locked_is_in_use_whatever_its_name_says(tmp_path: Path, kind: str) -> None:
    path = tmp_path / dead("x")  # as from another container, whose process ids mean nothing here
    path.touch() if kind == "file" else path.mkdir()
    with held(path):
        assert not is_leftover(path)
        remove_leftovers(tmp_path)
        assert path.exists()
    assert is_leftover(path)


def test_the_next_writer_in_a_folder_removes_them(tmp_path: Path) -> None:
    for start in (lambda: replace_file(tmp_path / "a", [b"x"]), lambda: enter(tmp_path)):
        (tmp_path / dead("model")).mkdir()
        (tmp_path / dead("plan.safetensors")).touch()
        start()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def enter(folder: Path) -> None:
    with temporary_folder(folder / partial_name("y")):
        pass


def test_they_are_found_in_folders_and_one_level_below(tmp_path: Path) -> None:
    inside = tmp_path / "pack"
    inside.mkdir()
    expected = [tmp_path / dead("model"), inside / dead("plan-a.safetensors")]
    for path in expected:
        path.touch()
    (tmp_path / partial_name("b")).touch()
    assert leftovers([tmp_path, tmp_path / "missing"]) == sorted(expected)


def test_a_folder_that_was_being_replaced_comes_back(tmp_path: Path) -> None:
    former = former_name("model").replace(f"-{os.getpid()}-", f"-{GONE}-")
    (tmp_path / former).mkdir()
    (tmp_path / former / "weights").touch()
    (tmp_path / dead("model")).mkdir()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model/weights").exists()
    (tmp_path / former).mkdir()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model/weights").exists()


@posix
def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from sparity_edge.system.atomic import temporary_folder\n"
        "from sparity_edge.system.leftovers import partial_name\n"
        "with temporary_folder(Path(sys.argv[1]) / partial_name('x')):\n"
        "    print('in', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        process.kill()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
