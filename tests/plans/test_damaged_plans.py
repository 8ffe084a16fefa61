"""Plan files that strangers made or damaged: refused in one sentence, never a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import contents
from plan_files import FILE, NAME, changed, edit_array, edit_file

from sparity_edge.arrays import aligned_empty
from sparity_edge.errors import FormatError, SparityError
from sparity_edge.model.opening import open_folder, open_packed, verify_packed
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.plans.plan_file import add_plan, plan_names, read_plan, remove_plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, _: h["__metadata__"].pop("sparity_edge_plan"), "lacks the metadata of a plan"),
        (lambda h, _: h.pop("__metadata__"), "lacks the metadata"),
        (lambda _, f: f.update(version=3), "has plan version 3"),
        (lambda _, f: f.update(version=True), "version that is not of type int"),
        (lambda _, f: f.pop("rule"), "exactly the fields"),
        (lambda _, f: f.update(more=1), "exactly the fields"),
        (lambda _, f: f.update(name="other"), "holds a plan named 'other'"),
        (lambda _, f: f.update(name=1), "name that is not of type str"),
        (lambda _, f: f.update(notes=[]), "notes that is not of type dict"),
        (lambda _, f: f.update(layout="chess"), "unknown layout 'chess'"),
        (lambda _, f: f.update(rule="best"), f"{FILE}: .*rule 'best'"),
        (lambda h, _: h.update({"tables.x": h.pop("tables.o_proj")}), "is no part of a plan"),
        (lambda h, _: h.update({"tables": h.pop("tables.o_proj")}), "is no part of a plan"),
        (lambda h, _: h.update({"levels.x": h.pop("levels")}), "is no part of a plan"),
        (lambda h, _: h.update({"tables.up_proj": h.pop("levels")}), "lacks levels"),
        (lambda h, _: h.update({"weights.up_proj": h.pop("tables.o_proj")}), "has no rule for it"),
        (lambda h, _: h["levels"].update(shape=[5]), "do not fit its shape"),
    ],
)
def test_lying_plans_are_refused(
    packed: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any], message: str
) -> None:
    edit_file(packed, change)
    with pytest.raises(FormatError, match=message) as caught:
        read_plan(open_folder(packed), NAME)
    assert str(packed / FILE) in str(caught.value)
    assert "again" in str(caught.value)
    open_packed(packed)
    with pytest.raises(FormatError, match=rf"{FILE} .*; remove plan {NAME} or make it again"):
        verify_packed(packed)


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("levels", 0, 0.1, "do not rise from 0"),
        ("levels", 3, 0.95, "above 0.9"),
        ("active", 0, 0.99, "do not fall from 1"),
        ("active", 2, np.nan, "do not fall from 1"),
        ("tables.neurons", -1, np.inf, "negative or not dense"),
        ("tables.neurons", 0, 0.5, "negative or not dense"),
        ("weights.q_proj", 7, 0.0, "not above 0"),
        ("centres.o_proj", 7, np.nan, "not finite"),
    ],
)
def test_wrong_numbers_are_refused(
    packed: Path, name: str, index: int, value: float, message: str
) -> None:
    edit_array(packed, name, index, value)
    with pytest.raises(FormatError, match=f"{FILE}: .*{message}.*calibrate the model again"):
        read_plan(open_folder(packed), NAME)


def test_centred_neurons_need_their_folded_matrix(packed: Path) -> None:
    made = read_plan(open_folder(packed), NAME)
    for means in ((), (made.means[0], None)):
        with pytest.raises(FormatError, match="a folded matrix is missing"):
            changed(packed, means=means)
    some = made.centres["neurons"].copy()
    some[1] = 0
    add_plan(
        open_folder(packed), changed(packed, means=(made.means[0], None), centres={"neurons": some})
    )
    assert read_plan(open_folder(packed), NAME).means[1] is None


@pytest.mark.parametrize("rule", ["top", "top-of-16"])
def test_a_share_dropped_is_at_most_all(rule: str, packed: Path) -> None:
    add_plan(open_folder(packed), changed(packed, rule=rule))
    edit_array(packed, "tables.q_proj", -1, 1.5)
    with pytest.raises(FormatError, match="drops more than there is"):
        read_plan(open_folder(packed), NAME)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tables": {"q_proj": np.outer([0, 1, 2, 3], np.ones(3))}}, "for 3 layers, not 2"),
        ({"weights": {"q_proj": np.ones((2, 49))}}, "other channels of q_proj"),
        ({"centres": {"neurons": np.ones((2, 50))}}, "other channels of neurons"),
        ({"means": (None, "wide")}, r"not of shape \[50, 50\]"),
    ],
)
def test_sizes_of_another_model_are_refused(
    packed: Path, fields: dict[str, Any], message: str
) -> None:
    if "means" in fields:
        layout = Layout("f32", "output", (50, 51))
        wide = PackedMatrix(layout, aligned_empty(layout.nbytes))
        fields = {"means": (None, wide), "centres": {}}
    if "tables" in fields:
        fields |= {"weights": {}, "centres": {}, "means": ()}
    before = contents(packed)
    with pytest.raises(FormatError, match=message):
        add_plan(open_folder(packed), changed(packed, **fields))
    assert contents(packed) == before


def test_files_for_another_number_of_layers(packed: Path) -> None:
    def rename(header: dict[str, Any], _: dict[str, Any]) -> None:
        layouts = header["__metadata__"]["sparity_edge"]
        header["__metadata__"]["sparity_edge"] = layouts.replace("means.1", "means.2")
        header["means.2"] = header.pop("means.1")

    edit_file(packed, rename)
    with pytest.raises(FormatError, match=r"'means.2', which is no part of a plan for a model"):
        read_plan(open_folder(packed), NAME)


@pytest.mark.parametrize("damage", ["gone", "empty", "short", "long", "folder"])
def test_a_damaged_plan_stops_only_those_who_ask_for_it(packed: Path, damage: str) -> None:
    path = packed / FILE
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"empty": b"", "short": content[:-4], "long": content + bytes(4)}[damage])
    open_packed(packed)
    assert plan_names(packed) == [NAME]
    for call in (lambda: read_plan(open_folder(packed), NAME), lambda: verify_packed(packed)):
        with pytest.raises(FormatError, match=rf"{FILE} .*; remove plan {NAME} or make it again"):
            call()
    if damage != "folder":
        remove_plan(packed, NAME)
        verify_packed(packed)


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_flipped_bits_raise_nothing_else(packed: Path, data: st.DataObject) -> None:
    original = (packed / FILE).read_bytes()
    header = 8 + int.from_bytes(original[:8], "little")
    last = data.draw(st.sampled_from([header, len(original)]))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, last - 1))
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    (packed / FILE).write_bytes(damaged)
    with contextlib.suppress(SparityError):
        read_plan(open_folder(packed), NAME)
    with contextlib.suppress(SparityError):
        verify_packed(packed)
    (packed / FILE).write_bytes(original)


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_cuts_and_padding_raise_nothing_else(packed: Path, data: st.DataObject) -> None:
    original = (packed / FILE).read_bytes()
    size = data.draw(st.integers(0, len(original) + 200))
    (packed / FILE).write_bytes(
        original[:size].ljust(size, data.draw(st.binary(min_size=1, max_size=1)))
    )
    with contextlib.nullcontext() if size == len(original) else pytest.raises(FormatError):
        read_plan(open_folder(packed), NAME)
    (packed / FILE).write_bytes(original)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_wrong_values_in_the_header_raise_nothing_else(packed: Path, data: st.DataObject) -> None:
    def change(header: dict[str, Any], fields: dict[str, Any]) -> None:
        place = data.draw(st.sampled_from([header, fields, *header.values()]))
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
        if "__metadata__" not in header or not isinstance(header["__metadata__"], dict):
            fields.clear()
            header["__metadata__"] = {}

    original = (packed / FILE).read_bytes()
    edit_file(packed, change)
    with contextlib.suppress(SparityError):
        read_plan(open_folder(packed), NAME)
    (packed / FILE).write_bytes(original)
