"""What the project says of itself in several places is the same everywhere."""

from __future__ import annotations

import ast
import re

import pytest
from own_files import ROOT, own_files

from sparity_edge.system.folders import CACHE_VARIABLE

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [name for name in own_files() if name.endswith(".md")]


def test_the_pythons_that_are_promised() -> None:
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert f'requires-python = ">={promised[0]}"' in PYPROJECT
    for page in (README, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")):
        assert f"Python {promised[0]} to {promised[-1]}" in page
    matrix = (ROOT / ".ci" / "matrix").read_text(encoding="utf-8")
    tried = re.search(r"versions=\((3[\d. ]+)\)", matrix)
    assert tried
    assert {promised[0], promised[-1]} <= set(tried[1].split()) <= set(promised)


def test_the_version_has_its_changes_and_the_licence_its_text() -> None:
    version = re.search(r'^version = "(.*)"', PYPROJECT, re.MULTILINE)
    assert version
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version[1])}\b", changes, re.MULTILINE)
    assert 'license = "Apache-2.0 AND MIT"' in PYPROJECT
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence


def test_the_variables_that_move_what_is_kept() -> None:
    usage = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    kept = usage.split("\n## Where things are kept\n")[1].split("\n## ")[0]
    for name in (CACHE_VARIABLE, "NUMBA_CACHE_DIR", "HF_HOME"):
        assert f"`{name}`" in kept


@pytest.mark.parametrize("page", PAGES)
def test_python_of_a_page_is_python(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(?!>>>)(.*?)\n```", text, re.DOTALL | re.MULTILINE):
        signature = page == "docs/api.md"
        ast.parse(f"def {block}: ..." if signature else block)


@pytest.mark.parametrize("page", PAGES)
def test_scripts_that_a_page_runs_exist_and_know_their_options(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for line in re.findall(r"python ((?:bench|docs|tests)/[^`#\n]*)", text):
        script, *words = line.split()
        shared = ROOT / "bench" / "shared" / "common.py"  # options of every benchmark
        source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / script, shared))
        for option in (word for word in words if word.startswith("--")):
            assert f'"{option}"' in source or f"{option} " in source, f"{script} {option}"
