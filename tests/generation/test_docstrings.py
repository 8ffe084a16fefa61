"""The examples in the docstrings of the public API run, on a tiny checkpoint."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sparity_edge
from sparity_edge import Generator
from sparity_edge.generation.batch_calls import BatchCalls
from sparity_edge.generation.model_handle import ModelHandle

NAMES = {name: getattr(sparity_edge, name) for name in sparity_edge.__all__}
PUBLIC = (ModelHandle, BatchCalls, *(value for value in NAMES.values() if callable(value)))
# Methods whose docstring names every argument and has an example.
WITH_EXAMPLE = (
    "load", "twin", "stream", "generate", "chat", "stream_batch", "generate_batch", "logits",
    "save_cache", "load_cache", "set_plan", "info", "encode",
)  # fmt: skip


@pytest.fixture(scope="module")
def generator(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint("llama_gqa"), dtype="f32", threads=2) as loaded:
        yield loaded


def examples() -> list[Any]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [test for each in PUBLIC for test in finder.find(each, each.__name__)]
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_runs(
    example: Any,
    generator: Generator,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for each in example.examples:
        each.source = each.source.replace('"smollm2-135m"', repr(str(checkpoint("llama_gqa"))))
    example.globs = {**NAMES, "generator": generator}
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert (failed, tried) == (0, len(example.examples))


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_a_docstring_names_every_argument(name: str) -> None:
    method = getattr(Generator, name)
    text = inspect.getdoc(method) or ""
    assert "Example:" in text
    for argument in inspect.signature(method).parameters:
        assert argument in ("self", "options") or f"{argument}:" in text, argument
    returned = inspect.signature(method).return_annotation
    assert returned == "None" or "Yields:" in text or "Returns:" in text


def test_every_option_of_load_is_named() -> None:
    from sparity_edge.generation.options import LoadOptions

    text = inspect.getdoc(Generator.load) or ""
    assert not [name for name in LoadOptions.__annotations__ if f"{name}:" not in text]
