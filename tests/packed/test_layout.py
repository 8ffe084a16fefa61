"""Geometry of packed matrices: sizes and formulas of docs/format.md, and refused layouts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from packing import INT2K, INT3K, INT4K, INT5, INT5_MINIMUM, INT5K, INT6K, IQ4, IQ4K, layouts

from sparity_edge.errors import FormatError
from sparity_edge.packed.bundle import BundleLayout
from sparity_edge.packed.layout import BY_THEMSELVES, Layout

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "format.md"
SHAPES = ((576, 576), (1536, 576), (576, 1536), (4096, 14336), (100, 90))
KINDS = (("f32", 0, False), ("bf16", 0, False), ("int8", 32, False), ("int4", 32, True))
K_QUANTS = (INT2K, INT3K, INT4K, INT5K, INT6K, IQ4K)
KEPT = (INT5, INT5_MINIMUM, IQ4)


def document_rows() -> Iterator[str]:
    yield "| outputs x inputs | dtype | orientation | padded | header_bytes | row_bytes | nbytes |"
    yield "|---|---|---|---|---|---|---|"
    for shape in SHAPES:
        for dtype, group, minimum in (*KINDS, *KEPT, *K_QUANTS):
            orientations = ("output",) if dtype in BY_THEMSELVES else ("output", "input")
            if (dtype, group, minimum) in K_QUANTS and shape[1] % 256 != 0:
                orientations = ()
            for orientation in orientations:
                layout = Layout(dtype, orientation, shape, group, minimum)
                yield (
                    f"| {shape[0]} x {shape[1]} | {named(layout)} "
                    f"| {orientation} | {layout.padded} | {layout.header_bytes} "
                    f"| {layout.row_bytes} | {layout.nbytes} |"
                )


def bundle_rows() -> Iterator[str]:
    columns = ("neurons x hidden", "up", "down", "group", "header_bytes", "down_offset")
    columns += ("row_bytes", "nbytes")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    kinds = (*KINDS, INT4K, INT6K)
    for neurons, hidden in ((1536, 576), (14336, 4096), (90, 50)):
        for up, down in ((0, 0), (1, 1), (2, 2), (3, 3), (3, 2), (4, 4), (4, 5)):
            if up >= len(KINDS) and hidden % 256 != 0:
                continue
            layout = BundleLayout(
                Layout(kinds[up][0], "output", (neurons, hidden), *kinds[up][1:]),
                Layout(kinds[down][0], "input", (hidden, neurons), *kinds[down][1:]),
            )
            yield (
                f"| {neurons} x {hidden} | {named(layout.up)} | {named(layout.down)} "
                f"| {layout.group} | {layout.header_bytes} | {layout.down_offset} "
                f"| {layout.row_bytes} | {layout.nbytes} |"
            )


def named(layout: Layout) -> str:
    group = f"/{layout.group}" if layout.group else ""
    return f"{layout.dtype}{group}{' with minimum' * layout.minimum}"


@pytest.mark.parametrize(("name", "expected"), [("sizes", document_rows), ("bundles", bundle_rows)])
def test_the_document_has_the_sizes_of_the_code(
    name: str, expected: Callable[[], Iterator[str]]
) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    table = re.findall(rf"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", text, re.DOTALL)
    assert table == ["".join(f"{row}\n" for row in expected())]


@settings(deadline=None)
@given(layouts())
def test_formulas_of_the_document(layout: Layout) -> None:
    def up(value: int, multiple: int) -> int:
        return (value + multiple - 1) // multiple * multiple

    outputs, inputs = layout.shape
    digits = re.findall(r"\d+", layout.dtype)
    bits = int(digits[0])
    kinds = 2 if layout.minimum else 1
    if layout.dtype in ("int5", "iq4"):
        padded = up(inputs, 32)
        header = padded // 32 * 2 * kinds
        row = padded // 8 * bits + header
        nbytes = up(outputs * row, 64)
    elif layout.k_quant and layout.orientation == "input":
        tile, scales = {"int4k": (128, 192), "int6k": (256, 256)}[layout.dtype]
        padded = up(outputs, tile)
        header = padded // tile * scales
        row = padded * bits // 8
        row += 64 * (row % 1024 == 0)
        nbytes = inputs // layout.group * (header + layout.group * row)
        nbytes += inputs // 256 * padded * 2 * kinds
    elif layout.k_quant:
        padded = inputs
        sizes = {"int2k": 20, "int3k": 14, "int4k": 16, "int5k": 16, "int6k": 18, "iq4k": 8}
        header, scales = 0, sizes[layout.dtype]
        row = up(inputs * bits // 8 + inputs // 256 * scales, 32)
        nbytes = up(outputs * row, 64)
    elif layout.orientation == "output":
        least = {"f32": 16, "bf16": 32, "int8": 32, "int4": 64}[layout.dtype]
        padded = up(inputs, max(least, layout.group))
        header = up(padded // layout.group * 2 * kinds, 16) if layout.group else 0
        row = up(header + padded * bits // 8, 64)
        nbytes = outputs * row
    else:
        padded = up(outputs, 512 // bits)
        header = padded * 2 * kinds if layout.group else 0
        row = padded * bits // 8
        row += 64 * (row % 1024 == 0)
        nbytes = inputs * row
        if layout.group:
            nbytes = -(-inputs // layout.group) * (header + layout.group * row)
    assert (layout.padded, layout.header_bytes, layout.row_bytes) == (padded, header, row)
    assert layout.nbytes == nbytes
    assert nbytes % 64 == 0
    assert row % 64 == 0 or layout.kept_group or (layout.k_quant and row % 32 == 0)


@settings(deadline=None)
@given(layouts())
def test_a_layout_survives_json(layout: Layout) -> None:
    assert Layout.from_dict(layout.to_dict()) == layout


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "int3"},
        {"dtype": None},
        {"orientation": "up"},
        {"shape": [4]},
        {"shape": [4, 0]},
        {"shape": [4, -1]},
        {"shape": [4, True]},
        {"shape": [4, 1 << 40]},
        {"shape": "44"},
        {"group": 0},
        {"group": 48},
        {"group": True},
        {"minimum": 1},
        {"minimum": True},
        {"dtype": "f32"},
        {"extra": 1},
    ],
)
def test_contradictory_layouts_are_refused(change: dict[str, Any]) -> None:
    good = Layout("int8", "output", (4, 4), 32).to_dict()
    with pytest.raises(FormatError):
        Layout.from_dict({**good, **change})
    del good["dtype"]
    with pytest.raises(FormatError):
        Layout.from_dict(good)


@pytest.mark.parametrize(
    "change",
    [
        {"orientation": "up"},
        {"shape": [4, 255]},
        {"shape": [4, 128]},
        {"group": 16},
        {"group": 64},
        {"minimum": False},
        {"dtype": "int6k"},
    ],
)
def test_contradictory_k_quants_are_refused(change: dict[str, Any]) -> None:
    good = Layout("int4k", "output", (4, 256), 32, True).to_dict()
    with pytest.raises(FormatError):
        Layout.from_dict({**good, **change})


@pytest.mark.parametrize("change", [{"orientation": "input"}, {"group": 64}, {"group": 16}])
def test_contradictory_groups_of_gguf_are_refused(change: dict[str, Any]) -> None:
    good = Layout("int5", "output", (4, 250), 32, True).to_dict()
    with pytest.raises(FormatError):
        Layout.from_dict({**good, **change})
