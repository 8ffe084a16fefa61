"""Thresholds of every method against the published formulas, computed plainly from raw vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from converters.calibrate import fit_methods
from converters.calibration.gradient_layer import LayerFloats
from converters.calibration.layer_weights import LayerWeights
from converters.calibration.statistics import FIRST, NeuronStatistics, SiteStatistics
from converters.methods import METHODS, chosen_methods, teal_greedy
from converters.methods.centred import CENTRE_LEVEL, folded
from converters.methods.family import LEVELS, LayerFit, LayerView, Method
from converters.methods.teal import profiled
from converters.numbers.layout_bytes import unpack_matrix
from converters.numbers.quantize import Quantized
from converters.pack_options import PackOptions
from converters.store import prepare
from sparity_edge import OptionError
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.layer_run import LayerRun, Vectors
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_packed
from sparity_edge.model.rotary import RopeTables
from sparity_edge.packed.folder import PackedModel
from sparity_edge.packed.layout import PackedMatrix
from sparity_edge.plans.plan import LINEARS, NEURONS

Array = npt.NDArray[Any]
WINDOWS = np.random.default_rng(3).integers(5, 288, (6, 200))
# Bins are 0.4 % wide and a tau lies between two of a few ten thousand scores.
NEAR = 0.01
AT = 20  # LEVELS[20] is 0.5


@pytest.fixture(scope="module")
def fits(packed: PackedModel) -> dict[str, list[LayerFit]]:
    quick = [each for each in METHODS.values() if isinstance(each, Method) and not each.slow]
    return fit_methods(packed, WINDOWS, quick, threads=2)


@pytest.fixture(scope="module")
def raw(packed: PackedModel) -> list[dict[str, Array]]:
    """By layer: each vector of every counted token, (tokens, channels), from plain NumPy."""
    model = Model(packed, ReferenceMachine(), 256)
    layers = []
    with LayerRun(model, WINDOWS) as run:
        for layer in range(run.layers):
            parts: dict[str, list[Array]] = {}

            def keep(vectors: Vectors, parts: dict[str, list[Array]] = parts) -> None:
                skip = max(0, FIRST - vectors.position)
                for name in ("attn_in", "attn_out", "mlp_in", "gate", "up", "mlp_mid"):
                    part = np.array(getattr(vectors, name)[skip:], dtype=np.float64)
                    parts.setdefault(name, []).append(part)

            run.run(layer, keep)
            layers.append({name: np.concatenate(each) for name, each in parts.items()})
    return layers


def matrix(packed: PackedModel, name: str) -> Array:
    stored = packed.tensors[name]
    assert isinstance(stored, PackedMatrix)
    return np.asarray(unpack_matrix(stored.data, stored.layout))


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", ["chess-ffn", "chess-second", "chess-down", "cats"])
def test_thresholds_of_neurons(
    name: str,
    layer: int,
    packed: PackedModel,
    fits: dict[str, list[LayerFit]],
    raw: list[dict[str, Array]],
) -> None:
    gate, up = raw[layer]["gate"], raw[layer]["up"]
    down = matrix(packed, f"model.layers.{layer}.mlp.down_proj.weight")
    weights = {
        "chess-ffn": np.abs(up).mean(axis=0),
        "chess-second": np.sqrt((up**2).mean(axis=0)),
        "chess-down": np.abs(up).mean(axis=0) * np.linalg.norm(down, axis=0),
        "cats": np.ones(gate.shape[1]),
    }[name]
    fit = fits[name][layer]
    for at in (4, AT, 32):
        tau = np.quantile(np.abs(gate) * weights, LEVELS[at])
        thresholds = fit.taus[NEURONS][at] / fit.weights.get(NEURONS, 1.0)
        np.testing.assert_allclose(thresholds, tau / weights, rtol=NEAR)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(
    ("name", "piece", "site"),
    [
        ("chess", "q_proj", "attn_in"),
        ("chess", "o_proj", "attn_out"),
        ("teal", "v_proj", "attn_in"),
        ("teal", "o_proj", "attn_out"),
        ("teal", "up_proj", "mlp_in"),
        ("teal", "down_proj", "mlp_mid"),
    ],
)
def test_scalar_thresholds(
    name: str,
    piece: str,
    site: str,
    layer: int,
    fits: dict[str, list[LayerFit]],
    raw: list[dict[str, Array]],
) -> None:
    expected = np.quantile(np.abs(raw[layer][site]), LEVELS)
    np.testing.assert_allclose(fits[name][layer].taus[piece][1:], expected[1:], rtol=NEAR)


def test_chess_leaves_keys_and_values_dense(fits: dict[str, list[LayerFit]]) -> None:
    assert set(fits["chess"][0].taus) == {NEURONS, "q_proj", "o_proj"}
    assert set(fits["chess-ffn"][0].taus) == {NEURONS}


@pytest.mark.parametrize("layer", [0, 1])
def test_centred_gates(
    layer: int, packed: PackedModel, fits: dict[str, list[LayerFit]], raw: list[dict[str, Array]]
) -> None:
    gate, up = raw[layer]["gate"], raw[layer]["up"]
    weights = np.abs(up).mean(axis=0)
    centre = (gate * up**2).sum(axis=0) / (up**2).sum(axis=0)
    for _ in range(3):
        scores = np.abs(gate - centre) * weights
        skipped = scores <= np.quantile(scores, CENTRE_LEVEL)
        energy = (skipped * up**2).sum(axis=0)
        fresh = (skipped * gate * up**2).sum(axis=0) / np.where(energy > 0, energy, 1)
        centre = np.where(energy > 0, fresh, centre)
    fit = fits["centred"][layer]
    # A skipped token more or less moves the centre of a neuron that is seldom skipped.
    difference = np.abs(fit.centres[NEURONS] - centre)
    assert np.median(difference) < 3e-3
    assert difference.max() < 0.05
    scores = np.abs(gate - fit.centres[NEURONS]) * weights
    for at in (AT, 28):
        share = (scores <= fit.taus[NEURONS][at]).mean()
        assert share == pytest.approx(LEVELS[at], abs=0.005)
    up_weights = matrix(packed, f"model.layers.{layer}.mlp.up_proj.weight")
    down_weights = matrix(packed, f"model.layers.{layer}.mlp.down_proj.weight")
    expected = np.einsum("hn,n,nx->hx", down_weights, fit.centres[NEURONS], up_weights)
    assert fit.mean is not None
    mean = unpack_matrix(fit.mean.data, fit.mean.layout)
    assert not isinstance(mean, Quantized)
    np.testing.assert_allclose(mean, expected, atol=1e-5)


def test_centred_gates_refuse_an_up_bias(checkpoint: Callable[[str], Path]) -> None:
    biased = open_packed(prepare(str(checkpoint("llama_biases")), PackOptions(dtype="f32")))
    with pytest.raises(OptionError, match="bias"):
        fit_methods(biased, WINDOWS[:, :40], [METHODS["centred"]], threads=1)


def test_folding_is_the_mean_part_of_the_ffn() -> None:
    random = np.random.default_rng(5)
    up, down = random.normal(size=(9, 5)), random.normal(size=(5, 9))
    centre, x = random.normal(size=9), random.normal(size=5)
    np.testing.assert_allclose(folded(up, down, centre) @ x, down @ (centre * (up @ x)))


def test_the_profile_keeps_the_mean_rate() -> None:
    sizes = {name: (3 if name in ("gate_proj", "up_proj", "down_proj") else 1) for name in LINEARS}
    rates = profiled(sizes)
    mean = sum(sizes[name] * rates[name] for name in LINEARS) / sum(sizes.values())
    np.testing.assert_allclose(mean, LEVELS, atol=1e-4)
    assert rates["up_proj"][AT] < rates["gate_proj"][AT] < rates["o_proj"][AT]
    assert all((np.diff(each) >= 0).all() and each.max() < 1 for each in rates.values())


def test_the_greedy_search_shares_the_level_out(packed: PackedModel) -> None:
    greedy = METHODS["teal-greedy"]
    # So few tokens that NumPy multiplies in one thread.
    fits, same = (
        fit_methods(packed, WINDOWS[:, :40], [greedy], threads=threads)["teal-greedy"]
        for threads in (1, 3)
    )
    for fit, other in zip(fits, same, strict=True):
        assert all((fit.taus[name] == other.taus[name]).all() for name in LINEARS)
        sizes = {name: LayerWeights(packed, 0).shapes[name] for name in LINEARS}
        products = {name: outputs * inputs for name, (outputs, inputs) in sizes.items()}
        dropped = sum(products[name] * (1 - fit.kept[name]) for name in LINEARS)
        np.testing.assert_allclose(dropped / sum(products.values()), LEVELS, atol=0.02)
        rates = [1 - fit.kept[name][AT] for name in LINEARS]
        assert max(rates) - min(rates) > 0.05


def test_the_greedy_search_measures_the_whole_layer(packed: PackedModel) -> None:
    teal, measured = METHODS["teal"], []
    assert isinstance(teal, Method)

    def fit(view: LayerView) -> LayerFit:
        rates = dict.fromkeys(LINEARS, 0.5) | {"k_proj": 0.3, "up_proj": 0.0}
        masked = teal_greedy.MaskedLayer(view)
        for each in (dict.fromkeys(LINEARS, 0.2), rates):  # attention is kept between two errors
            error = masked.error(each)
        rope = RopeTables(packed.config, len(view.sample))
        dense = LayerFloats(packed, packed.config, view.statistics.layer, rope)
        apart = masked.forward(view.sample) - dense.forward(view.sample)
        measured.append((error, np.linalg.norm(apart[len(apart) * 3 // 4 :], axis=1).mean()))
        return teal.fit(view)

    fit_methods(packed, WINDOWS[:, :40], [replace(teal, name="mine", fit=fit)], threads=1)
    errors, whole = np.transpose(measured)
    assert len(errors) == 2
    assert (errors > 0).all()
    np.testing.assert_allclose(errors, whole, rtol=1e-5)


def test_unknown_methods() -> None:
    with pytest.raises(OptionError, match="chess"):
        chosen_methods(["chess", "magic"])


def test_methods_of_ones_own() -> None:
    mine = replace(METHODS["teal"], name="mine")
    assert chosen_methods(["teal", mine]) == [METHODS["teal"], mine]
    assert chosen_methods([METHODS["teal"]]) == [METHODS["teal"]]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": "chess"}, "of that name"),
        ({"name": "auto"}, "of that name"),
        ({"name": "Not a name"}, "its name"),
        ({"name": "mine", "layout": "mixed"}, "its layout"),
        ({"name": "mine", "rule": "magic"}, "its rule"),
    ],
)
def test_methods_that_are_refused_beforehand(change: dict[str, str], fault: str) -> None:
    with pytest.raises(OptionError, match=fault):
        chosen_methods([replace(METHODS["teal"], **change)])


def test_quantiles_of_a_site_span_many_orders() -> None:
    values = np.exp(np.random.default_rng(0).normal(scale=6, size=(400, 50))).astype(np.float32)
    site = SiteStatistics(50)
    site.add(values[:100])
    site.add(-values[100:])
    levels = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(site.quantiles(levels), np.quantile(values, levels), rtol=0.005)
    np.testing.assert_allclose(site.mean_absolute, values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        site.mean_square, (values.astype(float) ** 2).mean(axis=0), rtol=1e-5
    )
    assert site.largest == values.max()


def test_gates_of_neurons_that_never_move() -> None:
    neurons = NeuronStatistics(3)
    gate = np.full((50, 3), -0.25, dtype=np.float32)
    for job in neurons.jobs(gate, np.ones((50, 3), dtype=np.float32), 2):
        job()
    centre = neurons.centre_of_skipped(None, np.zeros(3))
    np.testing.assert_allclose(centre, -0.25, atol=1e-3)
    tau = neurons.quantiles(np.ones(3), np.array([0.5]), centre)[0]
    assert 0 < tau < 2e-3
