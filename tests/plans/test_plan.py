"""Plans: the table over the dial, and decoding that skips what a plan says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from plan_families import LEVELS, family
from stepwise import all_logits
from tiny_cases import PLANNED

from converters.pack import convert
from converters.pack_options import PackOptions
from converters.store import open_any
from sparity_edge import Generator, SamplingParams
from sparity_edge.errors import FormatError, OptionError, SparityError
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.model import DENSE_POSITIONS, Model
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.added_bytes import added_bytes
from sparity_edge.plans.plan_file import add_plan

Pack = Callable[..., PackedModel]
LAYOUTS = ("input", "ffn", "neurons", "mixed")


def logits(model: Model, ids: list[int], step: int) -> np.ndarray:
    return all_logits(model, ids, step, sparse=True)


def make(packed: PackedModel, machine: Any) -> Model:
    return Model(packed, machine, 64, "f32")


VARIANTS = {
    "plain": {},
    "weights": {"weights": True},
    "centres": {"centres": True},
    "top": {"rule": "top", "weights": True, "centres": True},
    "neighbours": {"rule": "top-of-16", "weights": True, "centres": True},
    "scaled": {"rule": "scaled", "weights": True, "centres": True},
    "gains": {"weights": True, "centres": True, "gains": True},
    "gains-alone": {"gains": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("threads", [1, 2])
def test_decoding_equals_masking(layout: str, variant: str, threads: int, pack: Pack) -> None:
    packed, ids = pack(layout), tiny.ids_of(PLANNED)
    plan = family(packed, layout, **VARIANTS[variant]).at_level(0.6)
    wanted_model = make(packed, ReferenceMachine())
    model = make(packed, ThreadedMachine(threads))
    dense = logits(model, ids, 1)
    for each in (wanted_model, model):
        each.set_plan(plan)
    wanted = logits(wanted_model, ids, 1)
    singly = logits(model, ids, 1)
    read, densities = model.active_weight_fraction, model.densities
    allowed = 1e-4 * np.abs(wanted).max()
    assert np.abs(singly - wanted).max() < allowed
    assert read == pytest.approx(wanted_model.active_weight_fraction)
    assert densities == pytest.approx(wanted_model.densities)
    assert np.abs(logits(model, ids, 16) - wanted).max() < allowed
    assert np.array_equal(singly[:DENSE_POSITIONS], dense[:DENSE_POSITIONS])
    assert np.abs(singly - dense).max() > 10 * allowed, "nothing was skipped"
    model.set_plan(None)
    assert np.array_equal(logits(model, ids, 1), dense)
    assert model.active_weight_fraction == 1.0
    model.close()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("gains", [False, True])
def test_number_formats(layout: str, dtype: str, gains: bool, pack: Pack) -> None:
    packed, ids = pack(layout, dtype), tiny.ids_of(PLANNED)
    plan = family(packed, layout, centres=True, gains=gains).at_level(0.6)
    wanted, model = make(packed, ReferenceMachine()), make(packed, ThreadedMachine(2))
    for each in (wanted, model):
        each.set_plan(plan)
    expected = logits(wanted, ids, 8)
    # Activations are rounded to 16 bits, so a few channels near a threshold may change sides.
    assert np.abs(logits(model, ids, 1) - expected).mean() < 2e-3 * np.abs(expected).max()
    model.close()


def test_bytes_are_counted(pack: Pack) -> None:
    packed = pack("input")
    plan = family(packed, "input", rule="top").at_level(0.6)
    model = make(packed, ThreadedMachine(1))
    model.set_plan(plan)
    logits(model, tiny.ids_of(PLANNED), 1)
    kept = {site: round(model.densities[site], 4) for site in model.densities}
    assert all(0.4 < share < 0.5 for share in kept.values())
    assert 0.4 < model.active_weight_fraction < 0.5
    model.close()
    rich = family(pack("mixed"), "mixed", centres=True, gains=True).at_level(0.6)
    # In each layer M (hidden, hidden), and the gains of six pieces that are read by hidden numbers.
    assert added_bytes(rich) == 2 * 4 * (64 * 64 + 6 * 64)


def test_table_is_interpolated(pack: Pack) -> None:
    table = family(pack("input"), "input")
    assert table.at_sparsity(0).layers == ({}, {})
    half_way = table.at_sparsity(0.2)
    assert half_way.level == pytest.approx(0.45)
    assert half_way.layers[0]["q_proj"].value == pytest.approx(0.45)
    assert table.at_level(0.45).sparsity == pytest.approx(0.2)
    for wrong in (-0.1, 0.51, 1.0):
        with pytest.raises(OptionError, match=r"out of range: plan by-hand reaches from 0 to 0.50"):
            table.at_sparsity(wrong)
    with pytest.raises(OptionError, match="level"):
        table.at_level(0.95)


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "sometimes"},
        {"levels": LEVELS[::-1]},
        {"levels": LEVELS[:2]},
        {"levels": LEVELS * 1.1},
        {"active": np.array([1, 0.9, 0.95, 0.5], dtype=np.float32)},
        {"active": np.array([1, 0.9, 0.7, np.nan], dtype=np.float32)},
        {"tables": {}},
        {"tables": {"nose": np.zeros((4, 2), dtype=np.float32)}},
        {"tables": {"q_proj": np.ones((4, 2), dtype=np.float32)}},
        {"weights": {"q_proj": np.zeros((2, 64), dtype=np.float32)}},
        {"centres": {"q_proj": np.full((2, 64), np.inf, dtype=np.float32)}},
        {"centres": {"neurons": np.zeros((2, 64), dtype=np.float32)}},
        {"means": (None,)},
        {"rule": "scaled"},
        {"predictors": {"q_proj": np.ones((2, 4), dtype=np.float32)}},
        {"gains": {"neurons": np.ones((2, 65), dtype=np.float32)}},
        {"gains": {"q_proj": np.ones((1, 65), dtype=np.float32)}},
        {"gains": {"q_proj": np.full((2, 65), np.nan, dtype=np.float32)}},
        {"rule": "top-of-5"},
        {"rule": "top-of-8", "tables": {"q_proj": np.outer([0, 1, 2, 3], np.ones(2))}},
        {"rule": "top", "gains": {"q_proj": np.ones((2, 65), dtype=np.float32)}},
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], pack: Pack) -> None:
    table = family(pack("input"), "input")
    with pytest.raises(FormatError, match="calibrate the model again"):
        dataclasses.replace(table, **change)


def test_layout_has_to_fit(pack: Pack) -> None:
    model = make(pack("dense"), ReferenceMachine())
    with pytest.raises(OptionError, match=r"convert .* OUT --layout input"):
        model.set_plan(family(pack("input"), "input").at_level(0.5))
    assert model.plan is None


@pytest.fixture
def folder(pack: Pack, tmp_path: Path) -> Path:
    """A packed folder with one plan."""
    source = open_any(str(pack("mixed").path))
    path = convert(source, tmp_path / "model", PackOptions(layout="mixed"))
    source.close()
    add_plan(open_folder(path), family(open_packed(path), "mixed"))
    return path


def test_generator_turns_the_dial(folder: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    prompt = tiny.ids_of(PLANNED)[:9]
    with Generator.load(folder, threads=2) as generator:
        dense = generator.generate(prompt, params)
        assert dense.stats.active_weight_fraction == 1.0
        assert not dense.stats.densities
        generator.sparsity = 0.4
        assert (generator.plan, generator.sparsity) == ("by-hand", pytest.approx(0.4))
        sparse = generator.generate(prompt, params)
        assert sparse.stats.active_weight_fraction < 1
        assert set(sparse.stats.densities) == {"attn_in", "attn_out", "mlp_in", "gate"}
        assert sparse.token_ids[0] == dense.token_ids[0], "the prompt is read densely"
        generator.sparsity = 0
        assert generator.generate(prompt, params).token_ids == dense.token_ids
    with Generator.load(folder, threads=1, level=0.6, plan="by-hand", force=True) as generator:
        assert generator.info()["level"] == pytest.approx(0.6)
        assert generator.generate(prompt, params).text


def test_plans_are_listed_by_level(folder: Path) -> None:
    with Generator.load(folder, threads=1) as generator:
        table = generator.plans()["by-hand"]
        assert table["0.30"] == pytest.approx(0.9)
        assert table["0.90"] == pytest.approx(0.5)


def test_same_bits_for_any_threads(folder: Path) -> None:
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=12, ignore_eos=True)
    answers = set()
    for threads in (1, 2, 5):
        with Generator.load(folder, threads=threads, sparsity=0.3, force=True) as generator:
            answers.add(generator.generate(tiny.ids_of(PLANNED)[:9], params).token_ids)
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"sparsity": 0.3, "level": 0.3}, "give one of them"),
        ({"sparsity": -0.1}, "not a number from 0 to 0.9"),
        ({"sparsity": float("nan")}, "not a number from 0 to 0.9"),
        ({"level": True}, "not a number from 0 to 0.9"),
        ({"sparsity": 0.3, "plan": "nose"}, "it carries by-hand"),
        ({"sparsity": 0.8}, "reaches from 0 to 0.50"),
    ],
)
def test_wrong_settings(folder: Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SparityError, match=sentence):
        Generator.load(folder, threads=1, **arguments)


def test_no_plan_names_the_command(pack: Pack) -> None:
    with pytest.raises(OptionError, match="sparity-edge calibrate"):
        Generator.load(pack("mixed").path, threads=1, sparsity=0.3)
