"""N:M plans: how many of each M neighbours stay, by which score, around which shift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.calibrate import fit_methods
from converters.calibration.layer_weights import LayerWeights
from converters.methods import METHODS
from converters.methods.family import LEVELS, LayerFit, Method
from converters.methods.n_of_m import N_OF_M
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.plan import LINEARS, NEIGHBOURS, SITES, SelectionRule

AT = 20  # LEVELS[20] is 0.5


@pytest.fixture(scope="module")
def fits(packed: PackedModel, windows: Any) -> dict[str, list[LayerFit]]:
    return fit_methods(packed, windows, N_OF_M, threads=2)


def allocated(method: Method, fits: Sequence[LayerFit]) -> list[LayerFit]:
    spread: Callable[[Sequence[LayerFit], Mapping[str, Any]], list[LayerFit]] | None
    spread = method.allocate
    assert spread is not None
    return spread(fits, {})


@pytest.mark.parametrize("of", NEIGHBOURS.values())
def test_half_is_half_of_every_group(of: int, fits: dict[str, list[LayerFit]]) -> None:
    method = METHODS[f"nm-{of}"]
    assert isinstance(method, Method)
    for fit in allocated(method, fits[method.name] * 20):
        for linear in LINEARS:
            rule = SelectionRule(method.rule, float(np.float32(fit.taus[linear][AT])))
            assert rule.kept(0) == of // 2


@given(st.integers(1, 60), st.integers(1, len(LEVELS) - 1), st.sampled_from([4, 8, 16, 32]))
def test_layers_share_out_what_lies_between(layers: int, at: int, of: int) -> None:
    method = METHODS[f"nm-{of}"]
    assert isinstance(method, Method)
    even = LayerFit({"q_proj": LEVELS}, {"q_proj": 1 - LEVELS})
    shares = [each.taus["q_proj"][at] for each in allocated(method, [even] * layers)]
    kept = np.array([SelectionRule(method.rule, share).kept(0) for share in shares])
    assert np.ptp(kept) <= 1
    assert abs(kept.mean() / of - (1 - LEVELS[at])) < 0.51 / layers / of


@pytest.mark.parametrize("layer", [0, 1])
def test_scores_and_shifts(
    layer: int,
    packed: PackedModel,
    fits: dict[str, list[LayerFit]],
    raw: list[dict[str, Any]],
    sampled: list[dict[str, Any]],
) -> None:
    weights = LayerWeights(packed, layer)
    assert not fits["nm-16"][layer].weights
    assert not fits["nm-16"][layer].centres
    for linear in LINEARS:
        x, some = raw[layer][SITES[linear]], sampled[layer][SITES[linear]]
        norms = np.sqrt((x**2).mean(axis=0))
        np.testing.assert_allclose(fits["nm-16-clact"][layer].weights[linear], norms, rtol=1e-3)
        mean = fits["nm-16-lpts"][layer].centres[linear]
        np.testing.assert_allclose(mean, x.mean(axis=0), atol=1e-3 * np.abs(x).max())
        shift = fits["nm-16-spts"][layer].centres[linear]
        np.testing.assert_allclose(shift, np.median(some, axis=1).mean(), atol=1e-5)
        matrix = weights.linear(linear).astype(np.float64)
        ends = np.quantile(matrix, [0.005, 0.995])
        inside = matrix[(matrix >= ends[0]) & (matrix <= ends[1])]
        columns = (((matrix - inside.mean()) / inside.std()) ** 2).sum(axis=0) ** 0.5
        score = fits["nm-16-amber"][layer].weights[linear]
        np.testing.assert_allclose(score, columns / columns.min(), rtol=1e-3)
