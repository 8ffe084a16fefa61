"""EvoPress: genomes keep their budget, a search finds what is best, and its plan is on the dial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packing import pack_folder

from converters.allocate.evolution import Effort, Genes, Genome, Stage, evolve
from converters.allocate.judge import Judge
from converters.allocate.starts import by_sensitivity, scheduled, shapes, tuned
from converters.calibrate import calibrate
from converters.calibration import checkpoint as checkpoints
from converters.calibration.checkpoint import Checkpoint
from converters.methods import evopress
from sparity_edge import Generator
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.logits import kl_divergence, log_normaliser
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import read_plan

IDS = np.random.default_rng(0).integers(5, 280, (4, 60))
EFFORT = Effort(3, 4, (Stage(2, 1), Stage(1, 2)))


@given(st.integers(2, 30), st.integers(0, 99), st.floats(0, 1))
def test_mutations_keep_the_budget(count: int, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1000, 9000, count).astype(float)
    genes = Genes(sizes)
    wanted = share * 0.95 * sizes.sum()
    genome = genes.genome(random.random(count), wanted)
    reached = genes.rates(genome) @ sizes
    assert abs(reached - wanted) <= genes.unit * (count if share > 0.99 else 1)
    for _ in range(5):
        child = genome
        if genome.any():
            child = genes.child(genome, random)
        assert child.sum() == genome.sum()
        assert (child >= 0).all()
        assert (child <= genes.room).all()


def test_rates_become_the_nearest_genome() -> None:
    sizes = np.array([1000.0, 2000, 4000])
    genes, rates = Genes(sizes), np.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(genes.rates(genes.genome(rates, rates @ sizes)), rates, atol=0.011)


def target(genomes: Sequence[Genome], _: Sequence[int]) -> list[float]:
    """A loss whose best genome drops all of the first genes."""
    return [float(np.sum(each * np.arange(len(each)) ** 2)) for each in genomes]


def test_a_search_finds_what_is_best(tmp_path: Path) -> None:
    genes = Genes(np.full(6, 1000.0))
    start = genes.genome(np.full(6, 0.3), 0.3 * 6000)
    effort = Effort(150, 8, (Stage(3, 1), Stage(1, 4)))
    best, history = evolve(genes, start, target, effort, 10)
    assert (history[:, 1] <= history[:, 0]).all(), "the parent stays if no child is better"
    assert best.tolist() == [95, 85, 0, 0, 0, 0]
    again, _ = evolve(genes, start, target, effort, 10)
    assert np.array_equal(best, again)
    other, way = evolve(genes, start, target, effort, 10, seed=1)
    assert np.array_equal(best, other)
    assert not np.array_equal(way, history)
    assert effort.judged == 8 * 1 + (3 + 1) * 4
    # Broken off at any generation it goes on to the same end.
    kept, calls = Checkpoint(tmp_path), 0

    def interrupted(genomes: Sequence[Genome], places: Sequence[int]) -> list[float]:
        nonlocal calls
        calls += 1
        if calls % 17 == 0:
            raise KeyboardInterrupt
        return target(genomes, places)

    for _ in range(100):
        try:
            resumed, told = evolve(genes, start, interrupted, effort, 10, checkpoint=kept)
        except KeyboardInterrupt:
            continue
        break
    assert np.array_equal(resumed, best)
    assert np.array_equal(told, history)


def test_a_state_of_another_search_is_not_taken(tmp_path: Path) -> None:
    genes, kept = Genes(np.full(6, 1000.0)), Checkpoint(tmp_path)
    first, second = (genes.genome(np.full(6, each), each * 6000) for each in (0.3, 0.5))
    evolve(genes, first, target, EFFORT, 10, checkpoint=kept)
    found, _ = evolve(genes, second, target, EFFORT, 10, checkpoint=kept)
    assert found.sum() == second.sum()


def test_starts_hit_the_mean() -> None:
    layers, sizes = [0, 0, 1, 1, 2, 2], np.array([1.0, 2, 1, 2, 1, 2])
    for shape in (*shapes(3).values(), by_sensitivity(np.array([[3.0, 1, 2], [3, 2, 1]]))):
        rates = scheduled(shape, layers, sizes, 0.5, 0.2)
        assert rates @ sizes / sizes.sum() == pytest.approx(0.5)
        assert rates[0] == rates[1]
    assert by_sensitivity(np.array([[3.0, 1, 2]])).tolist() == [0, 1, 0.5]
    chosen = tuned(lambda contrast: np.array([contrast]), lambda tried: [-e[0] for e in tried])
    assert chosen == pytest.approx(0.3)


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose inputs can be skipped."""
    out = tmp_path_factory.mktemp("evopress") / "model"
    return pack_folder(checkpoint("llama_gqa"), out, "f32", "input")


def test_the_judge_measures_kl(folder: Path) -> None:
    calibrate(str(folder), tokens=1024, methods=["teal"], threads=2)
    plan = read_plan(open_folder(folder), "teal").at_level(0.5)
    model = Model(open_packed(folder), ThreadedMachine(2), 64, "f32")
    judge = Judge(model, IDS)
    found = judge(plan, (1, 3))
    logits = {}
    for name, each in (("dense", None), ("sparse", plan)):
        model.set_plan(each)
        parts = []
        for place in (1, 3):
            model.kv_cache.trim(0)
            parts += [p.copy() for p in model.read_all_logits(IDS[place].tolist(), sparse=True)]
        logits[name] = np.concatenate(parts)
    dense, sparse = logits["dense"], logits["sparse"]
    expected = kl_divergence(dense, log_normaliser(dense), sparse, log_normaliser(sparse)).mean()
    assert found.kl == pytest.approx(expected, rel=1e-3)
    assert 0.3 < found.active < 0.9
    assert judge(plan, (1, 3)) == found
    model.close()


@pytest.mark.parametrize("layout", ["input", "mixed"])
def test_its_plan_keeps_the_word_of_the_dial(
    layout: str, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(evopress, "effort", lambda _: EFFORT)
    path = pack_folder(checkpoint("llama_gqa"), tmp_path / layout, "f32", layout)
    stored = calibrate(str(path), tokens=1024, methods=["evopress"], threads=2)
    family = stored[0].family
    assert family.most > 0.6
    assert set(family.notes["gained"]) == {"0.3", "0.5", "0.7"}
    with Generator.load(path, threads=1, sparse_prefill=True) as generator:
        for sparsity in (0.2, 0.3, 0.5):
            generator.set_plan("evopress", sparsity=sparsity, force=True)
            list(generator.logits(IDS.ravel().tolist()))
            assert generator.active_weight_fraction == pytest.approx(1 - sparsity, abs=0.03)


def test_an_interrupted_search_gives_the_same_plan(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(evopress, "effort", lambda _: EFFORT)
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    calls = 0

    def run(stop: int | None, threads: int) -> bytes:
        nonlocal calls
        calls = 0

        def progress(label: str, _: int, __: int) -> None:
            nonlocal calls
            calls += label.startswith("search")
            if calls == stop:
                raise KeyboardInterrupt

        calibrate(str(folder), tokens=1024, methods=["evopress"], threads=threads,
                  progress=progress)  # fmt: skip
        return (folder / "plan-evopress.safetensors").read_bytes()

    whole = run(None, 1)
    for stop in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            run(stop, 2)
    assert run(None, 2) == whole
