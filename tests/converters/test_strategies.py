"""The three strategies: what each changes about CHESS and TEAL, and that plans of them run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.allocate.layers import CONTRAST, by_rank, layer_rates, logarithmic
from converters.calibrate import calibrate, fit_methods
from converters.calibration.layer_weights import LayerWeights
from converters.methods import METHODS, chosen_methods
from converters.methods.family import LEVELS, LayerFit
from converters.methods.predictor import coefficients_of, wanted_factors
from converters.methods.strategies import ABLATION, STRATEGIES, column_norms
from converters.pack_options import PackOptions
from sparity_edge import Generator
from sparity_edge.kernels.reference.selection import factors
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.plan import LINEARS, NEURONS
from sparity_edge.progress import CallContext

WINDOWS = np.random.default_rng(3).integers(5, 288, (6, 200))
AT = 20  # LEVELS[20] is 0.5


@pytest.fixture(scope="module")
def fits(packed: PackedModel) -> dict[str, list[LayerFit]]:
    wanted = [*STRATEGIES, METHODS["chess-ffn"], METHODS["chess-down"]]
    return fit_methods(packed, WINDOWS, wanted, threads=2)


# Rates by layer


@given(
    st.integers(1, 40),
    st.integers(0, 99),
    st.sampled_from(["up", "down", "rank"]),
    st.floats(0, 0.6),
)
def test_rates_keep_the_mean(layers: int, seed: int, kind: str, contrast: float) -> None:
    random = np.random.default_rng(seed)
    sizes = random.uniform(1, 5, layers)
    shape = by_rank(random.random(layers), largest_first=True)
    if kind != "rank":
        shape = logarithmic(layers, rising=kind == "up")
    assert shape.min() >= 0
    assert shape.max() <= 1
    rates = layer_rates(shape, LEVELS, sizes, contrast)
    np.testing.assert_allclose(rates @ sizes / sizes.sum(), LEVELS, atol=1e-6)
    assert rates.min() >= 0
    assert rates.max() <= 0.9 + 1e-9
    assert (np.diff(rates[:, np.argsort(shape)], axis=1) >= -1e-9).all()


def test_the_logarithmic_schedule_is_the_published_one() -> None:
    rates = layer_rates(logarithmic(30, rising=True), np.array([0.5]), np.ones(30))[0]
    first, last = rates[0], rates[-1]
    steps = np.log(np.arange(30) + 1) / np.log(30)
    np.testing.assert_allclose(rates, first + (last - first) * steps, atol=1e-9)
    assert last - first == pytest.approx(CONTRAST)


def test_ranks() -> None:
    values = np.array([3.0, 1.0, 2.0])
    np.testing.assert_array_equal(by_rank(values, largest_first=True), [1, 0, 0.5])
    np.testing.assert_array_equal(by_rank(values, largest_first=False), [0, 1, 0.5])
    np.testing.assert_array_equal(by_rank(values[:1], largest_first=True), [0])


# The predictor


def sample(tokens: int = 400) -> Any:
    """Vectors whose sizes and tails differ from token to token."""
    random = np.random.default_rng(1)
    tails = random.uniform(0.5, 2.0, (tokens, 1))
    x = np.sign(random.normal(size=(tokens, 256))) * random.exponential(1, (tokens, 256)) ** tails
    return (x * random.lognormal(0, 0.5, (tokens, 1))).astype(np.float32)


def test_labels_give_every_token_the_mean_error() -> None:
    sizes = np.abs(sample())
    tau = np.quantile(sizes, 0.5)
    wanted = wanted_factors(sizes, 0.5)

    def errors(limits: Any) -> Any:
        return np.where(sizes < limits, sizes**2, 0).sum(axis=1) / (sizes**2).sum(axis=1)

    bound = errors(tau).mean()
    free = (wanted > 0.2501) & (wanted < 3.999)
    assert free.mean() > 0.5
    found = errors(tau * wanted[:, None])[free]
    assert (np.abs(found / bound - 1) < 0.2).mean() > 0.95, "but for a step of one channel"
    assert np.ptp(errors(tau)) > 2 * np.ptp(found)


def test_the_line_is_found_again() -> None:
    x = sample()
    truth = np.array([0.1, 0.3, -0.4, 0.1], dtype=np.float32)
    found = coefficients_of(x, factors(x, truth)[:, 0])
    assert np.abs(np.log(factors(x, found) / factors(x, truth))).max() < 0.1
    still = np.ones((50, 8), dtype=np.float32)
    np.testing.assert_allclose(factors(still, coefficients_of(still, np.full(50, 2.0))), 2, 1e-5)


def test_predicted_thresholds(fits: dict[str, list[LayerFit]]) -> None:
    for name, piece in (("chess-scaled", NEURONS), ("teal-scaled", "down_proj")):
        for fit in fits[name]:
            assert fit.predictors[piece].shape == (4,)
            assert np.isfinite(fit.predictors[piece]).all()
            assert (np.diff(fit.taus[piece]) >= 0).all()
            assert fit.kept[piece][AT] == pytest.approx(0.5)
    shared = fits["teal-scaled"][0]
    assert shared.predictors["q_proj"] is shared.predictors["v_proj"]


# Methods


def test_a_share_of_every_token(fits: dict[str, list[LayerFit]]) -> None:
    for name in ("chess-top", "chess-top-down", "teal-top", "teal-norm"):
        for fit in fits[name]:
            assert set(fit.taus) == ({NEURONS} if name.startswith("chess") else set(LINEARS))
            for taus in fit.taus.values():
                np.testing.assert_array_equal(taus, LEVELS)
    assert not fits["teal-top"][0].weights
    plain, chess = fits["chess-top"][0], fits["chess-ffn"][0]
    np.testing.assert_allclose(plain.weights[NEURONS], chess.weights[NEURONS])


def test_norms(packed: PackedModel, fits: dict[str, list[LayerFit]]) -> None:
    weights = LayerWeights(packed, 1)
    down = np.linalg.norm(weights.linear("down_proj"), axis=0)
    plain, half, whole = (
        fits[name][1].weights[NEURONS] for name in ("chess-ffn", "chess-down-half", "chess-down")
    )
    np.testing.assert_allclose(half / plain, np.sqrt(down), rtol=1e-5)
    np.testing.assert_allclose(whole / plain, down, rtol=1e-5)
    norm = fits["teal-norm"][1].weights
    assert norm["gate_proj"] is norm["up_proj"]
    stacked = np.concatenate([weights.linear(name) for name in ("q_proj", "k_proj", "v_proj")])
    np.testing.assert_allclose(norm["k_proj"], np.linalg.norm(stacked, axis=0), rtol=1e-5)
    np.testing.assert_allclose(norm["down_proj"], down, rtol=1e-5)
    view = type("View", (), {"weights": weights})()
    for name, each in column_norms(view, 0.5).items():
        np.testing.assert_allclose(each**2, norm[name], rtol=1e-5)


def test_groups() -> None:
    assert [method.name for method in chosen_methods(["ablation"])] == list(ABLATION)
    assert not {method.name for method in chosen_methods(["all"])} & {
        method.name for method in STRATEGIES
    }


def test_plans_run(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    from converters.pack import convert
    from converters.sources import open_source

    for layout, wanted in (("mixed", "ablation"), ("input", "teal")):
        source = open_source(str(checkpoint("llama_gqa")), CallContext(offline=True))
        folder = convert(source, tmp_path / layout, PackOptions(dtype="int8", layout=layout))
        source.close()
        names = [wanted] if wanted == "ablation" else ["teal-scaled", "teal-top", "teal-norm-half"]
        stored = calibrate(str(folder), tokens=1024, methods=names, threads=2)
        families = {each.family.name: each.family for each in stored}
        with Generator.load(folder, threads=1, sparse_prefill=True) as generator:
            ids = np.random.default_rng(0).integers(5, 280, 200).tolist()
            for name, family in families.items():
                # More than a pack of so small a model may save by its padding alone.
                generator.set_plan(name, sparsity=0.45)
                list(generator.logits(ids))
                near = 0.01 if family.rule == "top" else 0.1
                assert generator.active_weight_fraction == pytest.approx(0.55, abs=near), name
        if layout == "mixed":
            assert families["chess-all"].rule == "top"
            assert families["chess-scaled"].predictors
            rates = families["chess-top-variance"].tables[NEURONS][AT]
            assert np.ptp(rates) == pytest.approx(CONTRAST, abs=1e-3)
