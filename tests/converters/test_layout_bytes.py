"""Packed rows byte by byte: no value is lost, whatever the layout and the order of writing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import equal, layouts, random_quantized, random_weights

from converters.numbers.layout_bytes import pack_matrix, rows_layout, unpack_matrix, write_rows
from converters.numbers.quantize import Quantized
from sparity_edge.arrays import aligned_empty
from sparity_edge.kernels.reference.unpack import unpack
from sparity_edge.packed.layout import BY_THEMSELVES, Layout, PackedMatrix

ANY_ORIENTATION = layouts().filter(lambda layout: layout.dtype not in BY_THEMSELVES)


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
    # So many rows are filled up to 64 bytes.
    step *= 32 if layout.kept_group else 1 + layout.k_quant
    weights = random_weights(layout)
    whole = pack_matrix(weights, layout)
    parts = []
    for start in range(0, layout.shape[0], step):
        stop = min(layout.shape[0], start + step)
        rows = unpack_matrix(whole, layout, start, stop)
        parts.append(pack_matrix(rows, rows_layout(layout, stop - start)))
    assert np.array_equal(np.concatenate(parts), whole)


@settings(deadline=None, max_examples=50)
@given(layouts(), st.sampled_from([32, 64, 96, 256]))
def test_rows_may_be_written_in_blocks(layout: Layout, step: int) -> None:
    if layout.k_quant and layout.orientation == "input":
        step = 256
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
    layout = Layout("int4k", "output", (3, 768), 32, True)
    weights = random_quantized(layout.shape, "int4k", 32, True)
    packed = pack_matrix(weights, layout)
    assert (layout.padded, layout.row_bytes, layout.nbytes) == (768, 448, 1344)
    row = packed[2 * layout.row_bytes :][: layout.row_bytes]
    q, scales, least = weights.numbers[2], weights.scales[2], weights.minimums
    assert least is not None
    assert weights.factors is not None
    # Two superblocks: four inputs of each of 16 groups, eight inputs further in the next line.
    for line, byte, element in [(0, 0, 0), (0, 3, 3), (0, 4, 32), (0, 63, 483), (1, 0, 8)]:
        assert row[64 * line + byte] == q[element] | q[element + 4] << 4
    assert row[3 * 64 + 61] == q[505] | q[509] << 4
    # One superblock: of each group four inputs of the first half, and four of the second.
    for place, element in [(0, 0), (4, 32), (31, 227), (32, 16), (63, 243), (64, 8), (96, 24)]:
        assert row[256 + place] == q[512 + element] | q[516 + element] << 4
    bits = "".join(f"{byte:08b}"[::-1] for byte in row[384:])
    for start, groups, factors in ((0, 16, [0, 1]), (256, 8, [2])):
        for group in range(groups):
            twelve = int(bits[start + 12 * group :][:12][::-1], 2)
            index = group + start // 16
            assert twelve == int(scales[index]) | int(least[2, index]) << 6
        place = 384 + start // 8 + 12 * groups // 8
        expected = weights.factors[2, factors].tobytes()
        assert row[place : place + len(expected)].tobytes() == expected
    assert not row[384 + 48 :].any()


def test_bytes_of_an_int5_row() -> None:
    layout = Layout("int5", "output", (3, 570), 32, True)
    weights = random_quantized(layout.shape, "int5", 32, True)
    packed = pack_matrix(weights, layout)
    assert (layout.padded, layout.row_bytes, layout.nbytes) == (576, 18 * 24, 1344)
    row = packed[2 * layout.row_bytes :][: layout.row_bytes]
    q = np.zeros(576, dtype=np.uint8)
    q[:570] = weights.numbers[2]
    # Sixteen groups in lines of 64 bytes, then two in lines of 8.
    for lines, width, mine in ((row[:320], 64, q[:512]), (row[320:360], 8, q[512:])):
        vectors = mine.reshape(-1, 8, 4).swapaxes(0, 1).reshape(8, width)
        for byte in range(width):
            v = [int(each) for each in vectors[:, byte]]
            assert lines.reshape(5, width)[:, byte].tolist() == [
                v[0] | (v[5] >> 2) << 5,
                v[1] | (v[5] & 3) << 5 | (v[7] >> 1 & 1) << 7,
                v[2] | (v[6] >> 2) << 5,
                v[3] | (v[6] & 3) << 5 | (v[7] & 1) << 7,
                v[4] | (v[7] >> 2) << 5,
            ]
    assert weights.minimums is not None
    assert row[360:396].tobytes() == weights.scales[2].tobytes()
    assert row[396:].tobytes() == weights.minimums[2].tobytes()


def test_bytes_of_an_int5k_row() -> None:
    """Numbers as of int5, scales as of int4k."""
    layout = Layout("int5k", "output", (3, 768), 32, True)
    weights = random_quantized(layout.shape, "int5k", 32, True)
    row = pack_matrix(weights, layout)[2 * layout.row_bytes :][: layout.row_bytes]
    assert layout.row_bytes == 544
    fives = Quantized("int5", 32, weights.numbers, np.zeros((3, 24), np.float16))
    assert np.array_equal(row[:480], pack_matrix(fives, Layout("int5", *_SHAPE, 32))[1056:][:480])
    fours = replace(weights, dtype="int4k", numbers=weights.numbers & 15)
    scales = pack_matrix(fours, Layout("int4k", *_SHAPE, 32, True))[2 * 448 :][384:432]
    assert np.array_equal(row[480:528], scales)
    assert not row[528:].any()


_SHAPE: tuple[str, tuple[int, int]] = ("output", (3, 768))


def test_bytes_of_an_int6k_row() -> None:
    layout = Layout("int6k", "output", (3, 768), 16)
    weights = random_quantized(layout.shape, "int6k", 16, False)
    row = pack_matrix(weights, layout)[2 * layout.row_bytes :][: layout.row_bytes]
    assert (layout.padded, layout.row_bytes, layout.nbytes) == (768, 640, 1920)
    q = (weights.numbers[2] + 32).astype(np.uint8)
    lines = row[: 9 * 64].reshape(9, 64)
    # Of every 16 inputs of a group twelve, and on top of them the other four.
    places = [(0, 0, 0), (0, 4, 32), (0, 61, 481), (3, 0, 16), (3, 9, 16 + 65)]
    places += [(6, 0, 512), (6, 5, 545), (6, 32, 528), (6, 63, 512 + 243)]
    for line, byte, element in places:
        for index in range(3):
            top = q[element + 12] >> 2 * index & 3
            assert lines[line + index, byte] == q[element + 4 * index] | top << 6
    assert weights.factors is not None
    scales, factors = weights.scales[2].view(np.uint8), weights.factors[2].tobytes()
    assert row[576:592].tobytes() == scales[0:32:2].tobytes()
    assert row[592:608].tobytes() == scales[1:32:2].tobytes()
    assert row[608:612].tobytes() == factors[:4]
    assert row[612:628].tobytes() == scales[32::2].tobytes() + scales[33::2].tobytes()
    assert row[628:630].tobytes() == factors[4:]
    assert not row[630:].any()


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


@settings(deadline=None, max_examples=100)
@given(layouts())
def test_both_readings_give_the_same_values(layout: Layout) -> None:
    packed = pack_matrix(random_weights(layout), layout)
    read = unpack_matrix(packed, layout)
    expected = read if isinstance(read, np.ndarray) else read.dequantize()
    np.testing.assert_array_equal(unpack(PackedMatrix(layout, packed)), expected)
