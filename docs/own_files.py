"""Which files of a clone are the project's own, whatever a user has put beside them.

A clone that is used fills up: packed models, GGUF files, environments, reports, saved chats. In a
clone that git knows, what git tracks is the project's; in a copy without git it is what stands in
the project's folders and is no cache, environment or packed model. Everything that lists or reads
"all files" asks here. It does not know what a file holds. `python docs/own_files.py` prints them.
"""

from __future__ import annotations

import fnmatch
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Where the project's files stand, and those that stand beside these folders.
FOLDERS = (".ci", "bench", "converters", "docs", "findings", "sparity_edge", "tests")
TOP = (".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "pyproject.toml")
# A folder that holds one of these is an environment or a model, even inside a folder of ours.
FOREIGN = ("pyvenv.cfg", "manifest.json", "config.json")


def own_files(root: Path = ROOT) -> list[str]:
    """Paths of the project's files below a root, with /, files before folders, by name."""
    names = git_names(root, "--cached")
    if names is None:
        names = list(_in_copy(root))
    return sorted((name for name in names if (root / name).is_file()), key=_order)


def not_yet_added(root: Path = ROOT) -> list[str]:
    """Files in the project's folders that git neither tracks nor ignores, each as a sentence."""
    names = git_names(root, "--others", "--exclude-standard", *FOLDERS) or []
    return [f"left out until `git add`: {name}\n" for name in names]


def git_names(root: Path, *options: str) -> list[str] | None:
    """What `git ls-files` lists below a root; None where git does not know or does not run."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "ls-files", "-z", *options]
    try:
        run = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [name for name in run.stdout.decode("utf-8").split("\0") if name]


def _in_copy(root: Path) -> Iterator[str]:
    yield from TOP
    ignore = root / ".gitignore"
    ignored = ignore.read_text(encoding="utf-8").split() if ignore.exists() else []
    patterns = [*(pattern.rstrip("/") for pattern in ignored), ".*"]
    for folder in FOLDERS:
        if (root / folder).is_dir():
            yield from _below(root / folder, root, patterns)


def _below(folder: Path, root: Path, patterns: list[str]) -> Iterator[str]:
    if any((folder / name).exists() for name in FOREIGN):
        return
    for path in folder.iterdir():
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns):
            continue
        if path.is_dir():
            yield from _below(path, root, patterns)
        else:
            yield path.relative_to(root).as_posix()


def _order(name: str) -> list[tuple[bool, str]]:
    *folders, last = name.split("/")
    return [*((True, folder) for folder in folders), (False, last)]


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}\n" for name in own_files())
    sys.stderr.writelines(not_yet_added())
