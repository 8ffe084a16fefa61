"""Plan files: nothing changes on the way through one, and a conversion takes them along."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packing import INT4, FakeSource, contents
from plan_families import family
from plan_files import FILE, NAME, assert_same, changed, edit_array, edit_file

from converters.pack import convert
from converters.pack_options import PackOptions
from converters.sources.packed import PackedSource
from sparity_edge.arrays import aligned_empty
from sparity_edge.choices import LAYOUTS
from sparity_edge.errors import FormatError, OptionError
from sparity_edge.model.opening import open_folder, open_packed, verify_packed
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.plans.plan_file import add_plan, fingerprint, plan_names, read_plan, remove_plan


@pytest.mark.parametrize("layout", ["input", "ffn", "neurons", "mixed"])
@pytest.mark.parametrize("rich", [False, True])
def test_what_was_added_is_read(tmp_path: Path, layout: str, rich: bool) -> None:
    folder = convert(FakeSource(), tmp_path / "model", PackOptions(layout=layout))
    assert plan_names(folder) == []
    made = family(open_packed(folder), layout, weights=rich, centres=rich)
    add_plan(open_folder(folder), made)
    assert plan_names(folder) == [NAME]
    found = read_plan(open_folder(folder), NAME)
    assert_same(found, made)
    assert all(mean is None or mean.data.ctypes.data % 64 == 0 for mean in found.means)
    verify_packed(folder)


def test_predictors_are_read(tmp_path: Path) -> None:
    folder = convert(FakeSource(), tmp_path / "model", PackOptions(layout="mixed"))
    made = family(open_packed(folder), "mixed", rule="scaled", weights=True)
    add_plan(open_folder(folder), made)
    assert_same(read_plan(open_folder(folder), NAME), made)
    edit_array(folder, "predictors.q_proj", 1, np.nan)
    with pytest.raises(FormatError, match="not finite"):
        read_plan(open_folder(folder), NAME)


def test_gains_are_read(tmp_path: Path) -> None:
    folder = convert(FakeSource(), tmp_path / "model", PackOptions(layout="mixed"))
    made = family(open_packed(folder), "mixed", gains=True)
    add_plan(open_folder(folder), made)
    assert_same(read_plan(open_folder(folder), NAME), made)
    edit_array(folder, "gains.q_proj", 1, np.nan)
    with pytest.raises(FormatError, match="not finite"):
        read_plan(open_folder(folder), NAME)
    short = {"q_proj": made.gains["q_proj"][:, 1:]}
    with pytest.raises(FormatError, match="hidden size"):
        add_plan(open_folder(folder), dataclasses.replace(made, name="short", gains=short))


def test_matrices_of_some_layers_in_any_format(packed: Path) -> None:
    layout = Layout("int4", "input", (50, 50), 32, True)
    data = aligned_empty(layout.nbytes)
    data[:] = np.arange(layout.nbytes)
    means = (None, PackedMatrix(layout, data))
    made = changed(packed, means=means, centres={}, notes={"kl": [0.5, None]})
    add_plan(open_folder(packed), made)
    assert_same(read_plan(open_folder(packed), NAME), made)


def test_numbers_of_double_precision_are_rounded(packed: Path) -> None:
    made = changed(packed, levels=np.array([0, 0.1, 0.2, 0.9]), active=np.array([1, 0.9, 0.8, 0.1]))
    add_plan(open_folder(packed), made)
    found = read_plan(open_folder(packed), NAME)
    assert found.levels.dtype == found.active.dtype == np.float32
    np.testing.assert_allclose(found.levels, made.levels, rtol=1e-7)
    before = contents(packed)
    close = np.array([0, 0.1, 0.1 + 1e-12, 0.9])
    with pytest.raises(FormatError, match="do not rise"):
        add_plan(open_folder(packed), changed(packed, levels=close))
    weights = {"q_proj": np.full((2, 50), 1e300)}
    with pytest.raises(FormatError, match="not finite"):
        add_plan(open_folder(packed), changed(packed, weights=weights))
    assert contents(packed) == before


def test_several_plans_are_listed_replaced_and_removed(packed: Path) -> None:
    add_plan(open_folder(packed), changed(packed, name="auto"))
    add_plan(open_folder(packed), changed(packed, name="auto", method="newer"))
    assert plan_names(packed) == ["auto", NAME]
    assert read_plan(open_folder(packed), "auto").method == "newer"
    verify_packed(packed)
    remove_plan(packed, NAME)
    assert plan_names(packed) == ["auto"]
    assert not (packed / FILE).exists()
    verify_packed(packed)
    with pytest.raises(OptionError, match=r"no plan 'by-hand'; it carries auto\.$"):
        read_plan(open_folder(packed), NAME)
    remove_plan(packed, "auto")
    none = r"no plan 'auto'; sparity-edge calibrate makes one"
    with pytest.raises(OptionError, match=none):
        read_plan(open_folder(packed), "auto")
    with pytest.raises(OptionError, match=none):
        remove_plan(packed, "auto")


@pytest.mark.parametrize("name", ["", "A", "a_b", "../x", "x" * 41, "a\n", "é"])
def test_names_are_plain(packed: Path, name: str) -> None:
    before = contents(packed)
    with pytest.raises(OptionError, match="1 to 40 of a-z"):
        add_plan(open_folder(packed), changed(packed, name=name))
    with pytest.raises(OptionError):
        read_plan(open_folder(packed), name)
    assert contents(packed) == before


def test_layout_and_number_format_leave_the_fingerprint(tmp_path: Path) -> None:
    packs = [
        (FakeSource(), PackOptions("f32")),
        (FakeSource(), PackOptions("int4", layout="mixed")),
        (FakeSource({"down_proj": INT4}), PackOptions(layout="input")),
    ]
    prints = {
        fingerprint(open_packed(convert(source, tmp_path / str(index), options)))
        for index, (source, options) in enumerate(packs)
    }
    # Of this model since there have been plans: steps that it does not have are no part of it.
    assert prints == {"0c7f7fab65a03c5ea59f5abce66e236875f362d796bc75b54f582684238124e2"}


@pytest.mark.parametrize("change", ["norm", "bias", "theta", "context", "epsilon"])
def test_what_the_fingerprint_depends_on(tmp_path: Path, pristine: Path, change: str) -> None:
    source = FakeSource()
    if change == "norm":
        source.tensors["model.norm.weight"][3] += 1
    elif change == "bias":
        source.tensors["model.layers.1.self_attn.q_proj.bias"][0] += 1
    elif change == "theta":
        source.config_json["rope_theta"] = 20000.0
    elif change == "context":
        source.config_json["max_position_embeddings"] = 77
    else:
        source.config_json["rms_norm_eps"] = float(np.float32(1e-6))  # as a GGUF file has it
    folder = convert(source, tmp_path / "out", PackOptions())
    same = change in ("context", "epsilon")
    assert (
        fingerprint(open_packed(folder)) == read_plan(open_folder(pristine), NAME).model
    ) == same
    made = read_plan(open_folder(pristine), NAME)
    with contextlib.nullcontext() if same else pytest.raises(FormatError, match="another model"):
        add_plan(open_folder(folder), made)
    assert plan_names(folder) == ([NAME] if same else [])


def test_a_plan_of_another_model_is_refused(packed: Path) -> None:
    edit_file(packed, lambda _, fields: fields.update(model="0" * 64))
    with pytest.raises(FormatError, match=f"{FILE}: this plan is for another model; calibrate"):
        read_plan(open_folder(packed), NAME)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plans_go_along_while_the_numbers_stay(packed: Path, layout: str) -> None:
    out = packed.parent / "out"
    with PackedSource(packed) as source:
        convert(source, out, PackOptions(layout=layout))
    assert (out / FILE).read_bytes() == (packed / FILE).read_bytes()
    verify_packed(out)
    assert_same(read_plan(open_folder(out), NAME), read_plan(open_folder(packed), NAME))


@pytest.mark.parametrize(
    "options", [PackOptions("int4"), PackOptions(group=64), PackOptions("int8")]
)
def test_plans_stay_behind_when_numbers_change(packed: Path, options: PackOptions) -> None:
    out = packed.parent / "out"
    with PackedSource(packed) as source:
        convert(source, out, options)
    same = options.dtype == "int8" or options.group == 64  # integers are kept as they are
    assert plan_names(out) == ([NAME] if same else [])


def test_a_damaged_plan_does_not_go_along(packed: Path) -> None:
    edit_array(packed, "levels", 1, 0.2)
    with PackedSource(packed) as source, pytest.raises(FormatError, match=r"SHA-256 .*remove plan"):
        convert(source, packed.parent / "out", PackOptions())
    assert not (packed.parent / "out").exists()


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("scaling", "begin"),
    [
        (None, "0c7f7fab65a03c5e"),
        ({"rope_type": "linear", "factor": 2.0}, "704748ebcb94ae74"),
        (LLAMA3, "c4da1bf8bd5afb9e"),
    ],
    ids=["plain", "linear", "llama3"],
)
def test_plans_outlive_new_steps_that_their_model_has_not(
    tmp_path: Path, scaling: dict[str, Any] | None, begin: str
) -> None:
    """Fingerprints as the first version computed them."""
    source = FakeSource()
    source.config_json["rope_scaling"] = scaling
    folder = convert(source, tmp_path / "model", PackOptions())
    assert fingerprint(open_packed(folder)).startswith(begin)
