"""The plan `by-hand` of a packed folder: compared, changed, and damaged byte by byte."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors_files import edit_metadata, put_together, taken_apart

from sparity_edge.model.opening import open_folder
from sparity_edge.plans.plan import PlanFamily
from sparity_edge.plans.plan_file import read_plan

NAME = "by-hand"
FILE = f"plan-{NAME}.safetensors"


def assert_same(one: PlanFamily, other: PlanFamily) -> None:
    for field in dataclasses.fields(PlanFamily):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("tables", "weights", "centres", "predictors", "gains"):
            assert a.keys() == b.keys()
            assert all(np.array_equal(a[piece], b[piece]) for piece in a)
        elif field.name == "means":
            assert [each and each.layout for each in a] == [each and each.layout for each in b]
            assert all(np.array_equal(c.data, d.data) for c, d in zip(a, b) if c is not None)
        else:
            assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def changed(folder: Path, **fields: Any) -> PlanFamily:
    return dataclasses.replace(read_plan(open_folder(folder), NAME), **fields)


def edit_file(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change header and fields of the plan file; the manifest is not told."""
    edit_metadata(folder / FILE, "sparity_edge_plan", change)


def edit_array(folder: Path, name: str, index: int, value: float) -> None:
    path = folder / FILE
    header, data = taken_apart(path)
    start, stop = json.loads(header)[name]["data_offsets"]
    changed_data = bytearray(data)
    np.frombuffer(changed_data, "<f4", (stop - start) // 4, start)[index] = value
    put_together(path, header, bytes(changed_data))
