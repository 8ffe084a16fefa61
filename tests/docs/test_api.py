"""docs/api.md is what the docstrings say, of every public name; its examples run elsewhere."""

from __future__ import annotations

import ast
import inspect
import re

import make_api

import sparity_edge
from sparity_edge import Generator

PAGE = make_api.PAGE.read_text(encoding="utf-8")


def test_the_page_is_fresh() -> None:
    assert make_api.render() == PAGE, "run python docs/make_api.py"


def test_every_public_name_has_its_place() -> None:
    titles = re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)
    assert sorted([*titles, "__version__"]) == sorted(sparity_edge.__all__)


def test_every_method_of_the_generator_has_its_place() -> None:
    names = {name for name in dir(Generator) if name[0] != "_"} - make_api.INNER
    methods = set(re.findall(r"^### Generator\.(\w+)$", PAGE, re.MULTILINE))
    section = PAGE.split("\n## Generator\n")[1].split("\n## ")[0]
    properties = set(re.findall(r"^\| `(\w+)` ", section, re.MULTILINE))
    assert methods | properties == names
    assert "close" in methods
    assert "threads" in properties


def test_signatures_are_python() -> None:
    blocks = re.findall(r"```python\n(?!>>>)(.*?)\n```", PAGE, re.DOTALL)
    assert len(blocks) > 20
    for block in blocks:
        ast.parse(f"def {block}: ...")


def test_examples_of_docstrings_are_on_the_page() -> None:
    text = inspect.getdoc(Generator.encode) or ""
    assert text.split("Example:\n    ")[1].split("\n")[0] in PAGE
