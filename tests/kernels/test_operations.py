"""The examples in the docstrings of `Operations` run on the NumPy twins, and name all arguments."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import numpy as np
import pytest

from sparity_edge.arrays import rows
from sparity_edge.kernels.active_list import channels
from sparity_edge.kernels.kv_format import empty_rows
from sparity_edge.kernels.operations import Operations
from sparity_edge.kernels.reference.reference import Reference
from sparity_edge.kernels.screen import Candidates, Screen
from sparity_edge.kernels.sparse_vector import Selector

NAMES = [name for name in dir(Operations) if not name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(name: str) -> None:
    (example,) = doctest.DocTestFinder().find(getattr(Operations, name), name)
    example.globs = {
        "ops": Reference(), "np": np, "rows": rows, "empty_rows": empty_rows,
        "Selector": Selector, "Candidates": Candidates, "Screen": Screen, "channels": channels,
    }  # fmt: skip
    failed, tried = doctest.DocTestRunner().run(example)
    assert (failed, tried) == (0, len(example.examples))
    assert tried > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_names_every_argument(name: str) -> None:
    operation: Any = getattr(Operations, name)
    text = (inspect.getdoc(operation) or "").split("Example:")[0]
    for argument in list(inspect.signature(operation).parameters)[1:]:
        assert f"{argument}:" in text or f"{argument}, " in text, argument
