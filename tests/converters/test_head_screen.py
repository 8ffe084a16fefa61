"""Screens: a basis that loses nothing, the bytes of rows, and files that are damaged or missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.numbers.lane_bytes import lane_values, pack_lanes, quantized_lanes
from converters.screen import LABEL, basis, pays
from converters.screen_file import ready_screen
from converters.screen_place import path_of, screens
from sparity_edge import Generator
from sparity_edge.kernels.reference.unpack import unpack_lanes
from sparity_edge.packed.lane_rows import LaneLayout, LaneRows
from sparity_edge.progress import QUIET, CallContext


def test_all_coordinates_together_give_the_product() -> None:
    random = np.random.default_rng(0)
    mix = random.standard_normal((24, 24))
    states = (random.standard_normal((500, 24)) @ mix).astype(np.float32)
    rows = random.standard_normal((300, 24)).astype(np.float32)
    to_states, to_rows = basis(states, (rows.T @ rows / len(rows)).astype(np.float64))
    exact = states[:9] @ rows.T
    product = (states[:9] @ to_states.T) @ (rows @ to_rows).T
    np.testing.assert_allclose(product, exact, rtol=1e-3, atol=1e-3 * np.abs(exact).max())
    first = (states[:9] @ to_states[:12].T) @ (rows @ to_rows[:, :12]).T
    last = (states[:9] @ to_states[12:].T) @ (rows @ to_rows[:, 12:]).T
    assert np.square(first - exact).mean() < np.square(last - exact).mean() / 4


@given(st.integers(1, 70), st.integers(1, 3), st.sampled_from([1e-3, 1.0, 1e3]))
def test_rows_come_back_about_as_they_were(outputs: int, groups: int, scale: float) -> None:
    layout = LaneLayout(outputs, 64 * groups)
    values = np.random.default_rng(outputs).standard_normal((outputs, layout.inputs)) * scale
    values[0, :64] = 0
    numbers, scales = quantized_lanes(values.astype(np.float32))
    data = pack_lanes(numbers, scales, layout)
    assert data.nbytes == layout.nbytes
    back = unpack_lanes(LaneRows(layout, data))
    steps = np.abs(values).reshape(outputs, groups, 64).max(axis=2).repeat(64, axis=1) / 6.8
    assert back.shape == values.shape
    np.testing.assert_array_equal(back, lane_values(numbers, scales))
    assert (np.abs(back - values) <= 1.01 * steps).all()
    assert not back[0, :64].any()


def test_a_small_vocabulary_has_no_screen(checkpoint: Callable[[str], Path]) -> None:
    with Generator.load(checkpoint("llama_tied")) as generator:
        assert not pays(generator.loaded.model.packed)
        assert generator.loaded.model.screen is None


def test_a_screen_is_made_once_and_again_where_it_is_damaged(
    smollm2_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Generator.load(smollm2_gguf) as generator:
        model, tokenizer = generator.loaded.model, generator.tokenizer
        monkeypatch.setattr("converters.screen_place.screens", lambda: tmp_path / "screens")
        notes, labels = [], []

        def progress(label: str, done: int, total: int) -> None:
            labels.append((label, done, total))

        context = CallContext(False, progress, notes.append)
        made = ready_screen(model, tokenizer, context)
        assert made is not None
        path = path_of(model.packed)
        assert str(path) in notes[0]
        assert (LABEL, labels[-1][1]) == (LABEL, labels[-1][2])
        read = ready_screen(model, tokenizer, context)
        assert read is not None
        assert len(notes) == 1
        np.testing.assert_array_equal(read.rows.data, made.rows.data)
        np.testing.assert_array_equal(read.projection.data, made.projection.data)
        np.testing.assert_array_equal(read.errors, made.errors)
        whole = path.read_bytes()
        for damage in (
            b"",
            whole[:1000],
            whole[:-1],
            b"\xff" * 64,
            whole.replace(b"rows", b"raws"),
        ):
            path.write_bytes(damage)
            assert ready_screen(model, tokenizer, context) is not None
            assert path.read_bytes() == whole
        assert len(notes) == 6


def test_a_cache_that_cannot_be_written_costs_no_start(
    smollm2_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr("converters.screen_place.screens", lambda: tmp_path / "file")
    with Generator.load(smollm2_gguf) as generator:
        assert ready_screen(generator.loaded.model, generator.tokenizer, QUIET) is None
    assert screens() != tmp_path
