"""The plan `by-hand` of a packed folder: compared, changed, and damaged byte by byte."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

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
    return dataclasses.replace(read_plan(folder, NAME), **fields)


def edit_file(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change header and fields of the plan file; the manifest is not told."""
    path = folder / FILE
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    fields = json.loads(header["__metadata__"]["sparity_edge_plan"])
    before = json.dumps(fields)
    change(header, fields)
    if json.dumps(fields) != before:
        header["__metadata__"]["sparity_edge_plan"] = json.dumps(fields)
    text = json.dumps(header).encode()
    text = text.ljust(-(-(len(text) + 8) // 64) * 64 - 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def edit_array(folder: Path, name: str, index: int, value: float) -> None:
    path = folder / FILE
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    start, stop = json.loads(content[8 : 8 + length])[name]["data_offsets"]
    array = np.frombuffer(content, "<f4", (stop - start) // 4, 8 + length + start)
    array[index] = value
    path.write_bytes(content)
