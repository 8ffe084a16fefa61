"""LaRoSA (Liu et al., ICML 2025, arXiv 2507.01299): top-k of every token, in a rotated basis.

The rotation is in the weights (`converters.rotation`), so here are the rates alone: at level p the
share 0.8 p of the rotated vectors (inputs of q, k and v; of gate and up) and 1.2 p of the inputs
of o and down, which are not rotated, as in the authors' code. `larosa-static` is ours: the same
rates by one threshold for each vector in place of the top k, as in TEAL. What the rotation is worth
is what is left against `larosa-rates` and `larosa-rates-static`, the rates in the basis as it came.
"""

from __future__ import annotations

import numpy as np

from converters.calibration.histograms import Array
from converters.methods.family import LEVELS, LayerFit, LayerView, Method, scalar
from converters.methods.teal import MOST
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.config.norms import BEFORE
from sparity_edge.plans.plan import LINEARS

ROTATED, PLAIN = 0.8, 1.2  # times the level
RATES: dict[str, Array] = {
    linear: np.minimum(LEVELS * (PLAIN if linear in ("o_proj", "down_proj") else ROTATED), MOST)
    for linear in LINEARS
}


def _unrotated(config: ModelConfig) -> str | None:
    """Why a model cannot have these plans; None: it is rotated."""
    if config.rotation is not None:
        return None
    if config.norms != BEFORE:
        return (
            f"Models of type {config.model_type} cannot be rotated, as they norm what each half of "
            "a layer gives; LaRoSA's rates alone are larosa-rates."
        )
    return (
        "A plan of LaRoSA needs a packed folder whose weights are rotated; make one with "
        "sparity-edge convert MODEL OUT --layout input --rotate layers and calibrate that."
    )


def _top(view: LayerView) -> LayerFit:  # noqa: ARG001
    return LayerFit(RATES, {linear: 1 - rates for linear, rates in RATES.items()})


def _static(view: LayerView) -> LayerFit:
    return scalar(view, RATES)


LAROSA = (
    Method(
        "larosa",
        "LaRoSA: top |x| of every token, x rotated",
        "input",
        _top,
        slow=True,
        rule="top",
        unsuited=_unrotated,
    ),
    Method(
        "larosa-static",
        "LaRoSA's rates by thresholds, x rotated",
        "input",
        _static,
        slow=True,
        unsuited=_unrotated,
    ),
    Method(
        "larosa-rates",
        "LaRoSA's rates alone: top |x|, in any basis",
        "input",
        _top,
        slow=True,
        rule="top",
    ),
    Method(
        "larosa-rates-static",
        "LaRoSA's rates alone by thresholds",
        "input",
        _static,
        slow=True,
    ),
)
