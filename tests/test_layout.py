"""Geometry and bytes: formulas of docs/format.md, round trips, and single bytes at their places."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import INT4K, INT6K, equal, layouts, random_quantized, random_weights

from converters.layout_bytes import block_layout, pack_matrix, unpack_matrix, write_rows
from sparity_edge.bundle import BundleLayout
from sparity_edge.errors import FormatError
from sparity_edge.layout import Layout, aligned_empty

DOCUMENT = Path(__file__).parent.parent / "docs" / "format.md"
SHAPES = ((576, 576), (1536, 576), (576, 1536), (4096, 14336), (100, 90))
KINDS = (("f32", 0, False), ("bf16", 0, False), ("int8", 32, False), ("int4", 32, True))
SUPERBLOCKS = (INT4K, INT6K)
ANY_ORIENTATION = layouts().filter(lambda layout: not layout.superblocks)


def document_rows() -> Iterator[str]:
    yield "| outputs x inputs | dtype | orientation | padded | header_bytes | row_bytes | nbytes |"
    yield "|---|---|---|---|---|---|---|"
    for shape in SHAPES:
        for dtype, group, minimum in (*KINDS, *SUPERBLOCKS):
            orientations = ("output", "input")
            if (dtype, group, minimum) in SUPERBLOCKS:
                orientations = ("output",) if shape[1] % 256 == 0 else ()
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
    for neurons, hidden in ((1536, 576), (14336, 4096), (90, 50)):
        for up, down in ((0, 0), (1, 1), (2, 2), (3, 3), (3, 2)):
            layout = BundleLayout(
                Layout(KINDS[up][0], "output", (neurons, hidden), *KINDS[up][1:]),
                Layout(KINDS[down][0], "input", (hidden, neurons), *KINDS[down][1:]),
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
    bits = {"f32": 32, "bf16": 16, "int8": 8, "int4": 4, "int4k": 4, "int6k": 6}[layout.dtype]
    kinds = 2 if layout.minimum else 1
    if layout.dtype in ("int4k", "int6k"):
        padded = inputs
        header = up(inputs // 256 * (16 + 2 * kinds), 64)
        row = header + inputs * bits // 8
        nbytes = outputs * row
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
        nbytes = inputs * row
        if layout.group:
            nbytes = -(-inputs // layout.group) * (header + layout.group * row)
    assert (layout.padded, layout.header_bytes, layout.row_bytes) == (padded, header, row)
    assert layout.nbytes == nbytes
    assert nbytes % 64 == row % 64 == 0


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
        {"orientation": "input"},
        {"shape": [4, 255]},
        {"shape": [4, 128]},
        {"group": 16},
        {"group": 64},
        {"minimum": False},
        {"dtype": "int6k"},
    ],
)
def test_contradictory_superblocks_are_refused(change: dict[str, Any]) -> None:
    good = Layout("int4k", "output", (4, 256), 32, True).to_dict()
    with pytest.raises(FormatError):
        Layout.from_dict({**good, **change})


@settings(deadline=None, max_examples=150)
@given(layouts(), st.data())
def test_packing_loses_nothing(layout: Layout, data: st.DataObject) -> None:
    weights = random_weights(layout)
    packed = pack_matrix(weights, layout)
    assert packed.nbytes == layout.nbytes
    assert packed.ctypes.data % 64 == 0
    assert equal(unpack_matrix(packed, layout), weights)
    start = data.draw(st.integers(0, layout.shape[0] - 1))
    stop = data.draw(st.integers(start + 1, layout.shape[0]))
    some = unpack_matrix(packed, layout, start, stop)
    expected = weights.dequantize() if layout.quantized else weights
    got = some if isinstance(some, np.ndarray) else some.dequantize()
    assert np.array_equal(got, expected[start:stop])


@settings(deadline=None, max_examples=50)
@given(ANY_ORIENTATION)
def test_turning_a_matrix_changes_no_value(layout: Layout) -> None:
    other = replace(layout, orientation="input" if layout.orientation == "output" else "output")
    weights = random_weights(layout)
    once = unpack_matrix(pack_matrix(weights, layout), layout)
    twice = unpack_matrix(pack_matrix(once, other), other)
    assert equal(twice, weights)
    assert np.array_equal(
        pack_matrix(unpack_matrix(pack_matrix(twice, other), other), layout),
        pack_matrix(weights, layout),
    )


@settings(deadline=None, max_examples=30)
@given(layouts(), st.integers(1, 40))
def test_blocks_of_output_rows_follow_each_other(layout: Layout, step: int) -> None:
    layout = replace(layout, orientation="output")
    weights = random_weights(layout)
    whole = pack_matrix(weights, layout)
    parts = []
    for start in range(0, layout.shape[0], step):
        stop = min(layout.shape[0], start + step)
        rows = unpack_matrix(whole, layout, start, stop)
        parts.append(pack_matrix(rows, block_layout(layout, stop - start)))
    assert np.array_equal(np.concatenate(parts), whole)


@settings(deadline=None, max_examples=50)
@given(layouts(), st.sampled_from([32, 64, 96]))
def test_rows_may_be_written_in_blocks(layout: Layout, step: int) -> None:
    whole = pack_matrix(random_weights(layout), layout)
    data = aligned_empty(layout.nbytes)
    data.fill(0)
    for start in reversed(range(0, layout.shape[0], step)):
        rows = unpack_matrix(whole, layout, start, min(layout.shape[0], start + step))
        write_rows(data, rows, layout, start)
    assert np.array_equal(data, whole)


def test_bytes_of_an_output_row() -> None:
    layout = Layout("int4", "output", (3, 702), 32, True)
    weights = random_quantized(layout.shape, "int4", 32, True)
    row = pack_matrix(weights, layout)[2 * layout.row_bytes :][: layout.row_bytes]
    sizes = (layout.padded, layout.groups, layout.header_bytes, layout.row_bytes)
    assert sizes == (704, 22, 96, 448)
    assert (layout.numbers_at, layout.scales_at) == (0, 352)
    assert weights.minimums is not None
    assert row[352:396].tobytes() == weights.scales[2].tobytes()
    assert row[396:440].tobytes() == weights.minimums[2].tobytes()
    assert not row[440:].any()
    q = weights.numbers[2]
    block, wide, last = row[:256], row[256:320], row[320:352]
    # Four of inputs 0-31, four of 32-63 and so on; the second half of a group in the high bits.
    assert [block[0], block[4], block[61], block[64], block[255]] == [
        q[0] | q[16] << 4,
        q[32] | q[48] << 4,
        q[481] | q[497] << 4,
        q[4] | q[20] << 4,
        q[495] | q[511] << 4,
    ]
    q = q[512:]  # behind the last block 64 inputs further in the high bits
    assert [wide[0], wide[4], wide[8], wide[13], wide[63]] == [
        q[0] | q[64] << 4,
        q[32] | q[96] << 4,
        q[4] | q[68] << 4,
        q[33 + 4] | q[97 + 4] << 4,
        q[63] | q[127] << 4,
    ]
    assert [last[0], last[4], last[8]] == [
        q[128] | q[144] << 4,
        q[160] | q[176] << 4,
        q[132] | q[148] << 4,
    ]
    assert last[31] == q[175]  # its partner, input 703, is padding


def test_bytes_of_an_int8_row() -> None:
    layout = Layout("int8", "output", (2, 544), 32)
    weights = random_quantized(layout.shape, "int8", 32, False)
    row = pack_matrix(weights, layout)[layout.row_bytes :]
    assert (layout.numbers_at, layout.scales_at, layout.row_bytes) == (64, 0, 640)
    numbers, q = row[64:608].view(np.int8), weights.numbers[1]
    assert [numbers[0], numbers[4], numbers[63], numbers[64]] == [q[0], q[32], q[483], q[4]]
    assert np.array_equal(numbers[512:], q[512:])
    assert row[:34].tobytes() == weights.scales[1].tobytes()
    assert not row[34:64].any()


def test_bytes_of_an_int4k_row() -> None:
    layout = Layout("int4k", "output", (3, 512), 32, True)
    weights = random_quantized(layout.shape, "int4k", 32, True)
    row = pack_matrix(weights, layout)[2 * layout.row_bytes :][: layout.row_bytes]
    assert (layout.padded, layout.header_bytes, layout.row_bytes) == (512, 64, 320)
    assert weights.minimums is not None
    assert weights.factors is not None
    assert row[16:24].tobytes() == weights.scales[2, 8:].tobytes()
    assert row[24:32].tobytes() == weights.minimums[2, 8:].tobytes()
    assert row[32:40].tobytes() == weights.factors[2].tobytes()
    assert not row[40:64].any()
    q = weights.numbers[2]
    line = row[64 + 128 + 64 :]  # units 2 and 3 of the second superblock
    low, high = 256 + 128, 256 + 192
    places = [(0, 0), (3, 3), (4, 32), (8, 16), (12, 48), (16, 4), (63, 63)]
    for byte, element in places:
        assert line[byte] == q[low + element] | q[high + element] << 4


def test_bytes_of_an_int6k_row() -> None:
    layout = Layout("int6k", "output", (3, 512), 16)
    weights = random_quantized(layout.shape, "int6k", 16, False)
    row = pack_matrix(weights, layout)[2 * layout.row_bytes :][: layout.row_bytes]
    assert (layout.padded, layout.header_bytes, layout.row_bytes) == (512, 64, 448)
    assert weights.factors is not None
    scales = weights.scales[2].view(np.uint8)
    assert row[16:24].tolist() == scales[[16, 18, 17, 19, 20, 22, 21, 23]].tolist()
    assert row[32:36].tobytes() == weights.factors[2].tobytes()
    q = (weights.numbers[2] + 32).astype(np.uint8)
    lines = row[64 + 192 :].reshape(3, 64)
    for byte, element in [(0, 0), (4, 32), (9, 17), (12, 48), (63, 63)]:
        last = q[256 + 192 + element]
        for unit in range(3):
            top = last >> 2 * unit & 3
            assert lines[unit, byte] == q[256 + 64 * unit + element] | top << 6


def test_bytes_of_an_input_panel() -> None:
    layout = Layout("int8", "input", (70, 40), 32)
    weights = random_quantized(layout.shape, "int8", 32, False)
    packed = pack_matrix(weights, layout)
    assert (layout.padded, layout.header_bytes, layout.row_bytes) == (128, 256, 128)
    assert layout.nbytes == 2 * layout.panel_bytes == 2 * (256 + 32 * 128)
    second = packed[layout.panel_bytes :]
    assert second[:140].tobytes() == weights.scales[:, 1].tobytes()
    assert not second[140:256].any()
    row = second[256 + 3 * 128 :][:128]  # input channel 35
    assert row[:70].tobytes() == weights.numbers[:, 35].tobytes()
    assert not row[70:].any()
    assert not second[256 + 8 * 128 :].any()  # inputs 40 to 63 do not exist


def test_bytes_of_floats() -> None:
    values = np.array([[1.0, -2.5], [3.0, 0.1]], dtype=np.float32)
    turned = pack_matrix(values, Layout("f32", "input", (2, 2)))
    assert turned[64:72].view("<f4").tolist() == [-2.5, np.float32(0.1)]
    half = pack_matrix(values, Layout("bf16", "output", (2, 2)))
    assert half[:4].view("<u2").tolist() == [0x3F80, 0xC020]


def test_bf16_rounds_to_nearest_even_like_ml_dtypes() -> None:
    import ml_dtypes

    bits = np.random.default_rng(0).integers(0, 1 << 32, 4096, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    values = np.concatenate([values[np.abs(values) < 1e38], [1.00390625, 1.01171875]])
    values = values.astype(np.float32)[None]
    layout = Layout("bf16", "output", values.shape)
    expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(unpack_matrix(pack_matrix(values, layout), layout), expected)


@pytest.mark.parametrize("nbytes", [0, 1, 64, 1000])
def test_aligned_empty(nbytes: int) -> None:
    array = aligned_empty(nbytes)
    assert array.nbytes == nbytes
    assert nbytes == 0 or array.ctypes.data % 64 == 0
