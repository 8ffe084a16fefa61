"""A clone that is used stays the project: what a user keeps in it is none of its files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from own_files import FOLDERS, ROOT, TOP, git_names, own_files

OURS = [
    ".gitignore",
    "README.md",
    ".ci/run",
    "docs/usage.md",
    "sparity_edge/a.py",
    "tests/kernels/b.py",
]
USERS = (
    "my-model/manifest.json",
    "my-model/README.md",
    "tests/my-model/manifest.json",
    "tests/my-model/README.md",
    "model.gguf",
    "bench/model.gguf",
    "docs/my-model/weights-00001.bin",
    "docs/my-model/manifest.json",
    "column_norms.py",
    "notes.md",
    "chat.json",
    ".venv/lib/x.py",
    "env/pyvenv.cfg",
    "env/lib/x.py",
    "tests/env/pyvenv.cfg",
    "tests/env/lib/x.py",
    "build/lib/sparity_edge/a.py",
    "report/report.md",
    "docs/.ipynb_checkpoints/x.py",
    "sparity_edge/__pycache__/a.pyc",
    "tests/.out.partial-1/config.json",
)


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A small clone that was used; not yet one that git knows."""
    for name in (*OURS[1:], *USERS):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    shutil.copy(ROOT / ".gitignore", tmp_path)
    return tmp_path


def test_a_copy_without_git(used: Path) -> None:
    assert own_files(used) == OURS


def test_a_clone_has_what_git_tracks(used: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not on this machine")
    for command in (["init", "--quiet"], ["add", "--", *OURS]):
        subprocess.run(["git", "-C", str(used), *command], check=True)
    (used / "tests" / "new.py").touch()
    assert own_files(used) == OURS
    subprocess.run(["git", "-C", str(used), "add", "tests/new.py"], check=True)
    assert own_files(used) == [*OURS[:-1], "tests/new.py", OURS[-1]]


def test_the_folders_hold_all_that_git_tracks() -> None:
    tracked = git_names(ROOT, "--cached")
    if tracked is None:
        pytest.skip("this copy is not a clone that git knows")
    assert {name.split("/")[0] for name in tracked} <= {*FOLDERS, *TOP}
