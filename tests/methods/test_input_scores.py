"""WINA, WiSparse and SCAP: their scores against the papers' formulas, in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.calibrate import fit_methods
from converters.calibration.layer_weights import LayerWeights
from converters.methods import METHODS
from converters.methods.family import LEVELS, LayerFit
from converters.methods.scap import PATTERN
from converters.methods.strategies import TOGETHER
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.plan import LINEARS, SITES

NAMES = ("wina", "wisparse", "scap")
AT = 20  # LEVELS[20] is 0.5


@pytest.fixture(scope="module")
def fits(packed: PackedModel, windows: Any) -> dict[str, list[LayerFit]]:
    return fit_methods(packed, windows, [METHODS[name] for name in NAMES], threads=2)


@pytest.mark.parametrize("layer", [0, 1])
def test_wina_weighs_inputs_of_k_and_gate(
    layer: int, packed: PackedModel, fits: dict[str, list[LayerFit]]
) -> None:
    fit, weights = fits["wina"][layer], LayerWeights(packed, layer)
    assert METHODS["wina"].rule == "top"
    assert set(fit.weights) == {"k_proj", "gate_proj"}
    for name, each in fit.weights.items():
        columns = weights.linear(name).T
        np.testing.assert_allclose(each, [np.sqrt(column @ column) for column in columns], 1e-5)
    for name in LINEARS:
        np.testing.assert_array_equal(fit.taus[name], LEVELS)


@pytest.mark.parametrize("layer", [0, 1])
def test_wisparse_takes_the_exponent_of_least_error(
    layer: int,
    packed: PackedModel,
    fits: dict[str, list[LayerFit]],
    sampled: list[dict[str, Any]],
) -> None:
    fit, weights = fits["wisparse"][layer], LayerWeights(packed, layer)
    for group in TOGETHER:
        x = sampled[layer][SITES[group[0]]]
        matrix = np.concatenate([weights.linear(name) for name in group]).astype(np.float64)
        norms = np.sqrt((matrix**2).sum(axis=0))
        errors = []
        for exponent in (0, 0.5, 1):
            scores = np.abs(x) * norms**exponent
            dropped = np.where(scores > np.quantile(scores, 0.5), 0, x)
            errors.append(((dropped @ matrix.T) ** 2).sum())
        best = norms ** (0, 0.5, 1)[int(np.argmin(errors))]
        for name in group:
            np.testing.assert_allclose(fit.weights[name], best, rtol=1e-4)
            expected = np.quantile(np.abs(x) * best, LEVELS[1:])
            np.testing.assert_allclose(fit.taus[name][1:], expected, rtol=2e-3)


@pytest.mark.parametrize("layer", [0, 1])
def test_scap_drops_what_is_near_the_mode(
    layer: int,
    packed: PackedModel,
    fits: dict[str, list[LayerFit]],
    sampled: list[dict[str, Any]],
) -> None:
    fit, shapes = fits["scap"][layer], LayerWeights(packed, layer).shapes
    sizes = {name: shapes[name][0] * shapes[name][1] for name in PATTERN}
    rates = {name: 1 - fit.kept[name] for name in PATTERN}
    mean = sum(sizes[name] * rates[name] for name in PATTERN) / sum(sizes.values())
    np.testing.assert_allclose(mean, LEVELS, atol=1e-4)
    assert rates["gate_proj"][AT] / rates["down_proj"][AT] == pytest.approx(35 / 55)
    for name in PATTERN:
        x = sampled[layer][SITES[name]]
        mode = np.median(x)
        np.testing.assert_allclose(fit.centres[name], mode, atol=1e-5)
        share = (np.abs(x - mode) <= fit.taus[name][AT]).mean()
        assert share == pytest.approx(rates[name][AT], abs=0.01)
