"""Rules that add dense matrices, by masking: R-Sparse, and WINA with its rotations.

R-Sparse (arXiv 2504.19449): inputs that are kept are exact, what is dropped goes through a
truncated SVD of W; the share ALPHA of the budget goes to channels, the rest to the rank. WINA
(arXiv 2505.19427): inputs of q, k, v and of gate, up in the basis in which the columns of W_k and
W_gate are orthogonal. Half of the weights of every linear is read, and what changes of basis add.

    python bench/limits/compensated.py --pack ./f32 --data ../shared/data
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from limits.masked import Rule, Weights
from limits.n_of_m import pruned
from limits.runs import main as run

from sparity_edge.arrays import Floats
from sparity_edge.config.model_config import LAYER_LINEARS, ModelConfig
from sparity_edge.plans.plan import SITES

READ = 0.5  # of the weights of a linear
ALPHAS = (1.0, 0.95, 0.9, 0.8, 0.5)
BASIS = {"q_proj": "k_proj", "k_proj": "k_proj", "v_proj": "k_proj"}
BASIS |= {"gate_proj": "gate_proj", "up_proj": "gate_proj"}
WEIGHED = ("k_proj", "gate_proj")


class Split(NamedTuple):
    """R-Sparse of one linear."""

    norms: Floats  # of the columns, or ones
    tau: float
    first: Floats  # (outputs, rank)
    second: Floats  # (rank, inputs)


class Turned(NamedTuple):
    """WINA of one linear."""

    into: Floats | None  # (inputs, inputs), from inputs to coordinates
    weight: Floats  # of these
    norms: Floats | None  # of its columns


def directions(weight: Floats) -> Floats:
    """Right singular vectors, (inputs, inputs), those of the largest values first."""
    exact = weight.astype(np.float64)
    return np.linalg.eigh(exact.T @ exact)[1][:, ::-1].astype(np.float32)


def split(name: str, x: Floats, weights: Weights, alpha: float) -> Split:
    """Threshold and low rank for a budget of READ of the weights."""
    weight = weights[name]
    outputs, inputs = weight.shape
    kept = READ * alpha
    rank = round(inputs * outputs * (READ - kept) / (inputs + outputs))
    norms = np.linalg.norm(weight, axis=0) if alpha < 1 else np.ones(inputs, dtype=np.float32)
    tau = float(np.quantile(np.abs(x) * norms, 1 - kept))
    if outputs >= inputs:
        basis = directions(weight)[:, :rank]
        return Split(norms, tau, weight @ basis, basis.T)
    basis = directions(weight.T)[:, :rank]
    return Split(norms, tau, basis, basis.T @ weight)


def by_rank(x: Floats, weight: Floats, parts: Split) -> Floats:
    """Large inputs exactly, small ones through the low rank."""
    large = x * (np.abs(x) * parts.norms > parts.tau)
    return large @ weight.T + (x - large) @ parts.second.T @ parts.first.T


def turned(name: str, _x: Floats, weights: Weights, rotated: bool) -> Turned:
    """The right singular vectors in which inputs are chosen, the norm's weights taken over by W."""
    weight, into = weights[name], None
    if rotated and name in BASIS:
        norm = weights[SITES[name]]
        basis = directions(weights[BASIS[name]] * norm)
        into, weight = basis / norm[:, None], (weight * norm) @ basis
    norms = np.linalg.norm(weight, axis=0) if name in WEIGHED else None
    return Turned(into, weight, norms)


def largest(x: Floats, _weight: Floats, parts: Turned) -> Floats:
    """Half of each token's coordinates."""
    z = x if parts.into is None else x @ parts.into
    scores = None if parts.norms is None else np.abs(z) * parts.norms
    return pruned(z, None, scores) @ parts.weight.T


RULES = {
    "half of each token": Rule(lambda x, weight, _: pruned(x, None) @ weight.T),
    "WINA without rotation": Rule(largest, partial(turned, rotated=False)),
    "WINA": Rule(largest, partial(turned, rotated=True)),
    **{
        f"R-Sparse, alpha {alpha:g}": Rule(by_rank, partial(split, alpha=alpha)) for alpha in ALPHAS
    },
}


def reads(config: ModelConfig, rule: str) -> float:
    """The share of a layer's weights that a rule reads."""
    total = sum(int(np.prod(config.linear_shape(name))) for name in LAYER_LINEARS)
    added = 2 * config.hidden_size**2 if rule == "WINA" else 0
    return READ + added / total


if __name__ == "__main__":
    raise SystemExit(run(__doc__, "compensated", RULES, reads))
