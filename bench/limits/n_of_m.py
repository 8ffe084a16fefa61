"""N:M sparsity by masking: patterns, scores, what mends the error, and N:M on the weights.

Rules of arXiv 2509.22166 on every linear of a model, computed in plain NumPy (masked.py): also
those that no plan can hold, as they need numbers of each token (D-PTS, VAR) or of each output (LS).
KL to the dense model on text; half of all inputs, or weights, is dropped in every row.

    python bench/limits/n_of_m.py --pack ./f32 --data ../shared/data
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from limits.masked import Rule, Weights
from limits.runs import main as run

from sparity_edge.arrays import Floats

PATTERNS = ((2, 4), (4, 8), (8, 16), (16, 32))
ROBUST = (0.005, 0.995)


def pruned(x: Floats, of: int | None, scores: Floats | None = None) -> Floats:
    """x with the smaller half of each `of` neighbours (None: of a row) zero, by |x| or scores."""
    sizes = np.abs(x) if scores is None else scores
    groups = sizes.reshape(len(x), -1, of or x.shape[1])
    middle = groups.shape[2] // 2
    least = np.partition(groups, middle, axis=2)[:, :, middle : middle + 1]
    return x * (groups >= least).reshape(x.shape)


def act(x: Floats, weight: Floats, channels: Floats | None, of: int | None) -> Floats:
    """By |x|, times a number of each channel where there is one."""
    return pruned(x, of, None if channels is None else np.abs(x) * channels) @ weight.T


def around(x: Floats, weight: Floats, shift: Floats, of: int) -> Floats:
    """What is dropped counts as the shift: one, one of each channel, or (None) the median."""
    if shift is None:
        shift = np.median(x, axis=1, keepdims=True)
    return pruned(x - shift, of) @ weight.T + (shift * np.ones_like(x[:1])) @ weight.T


def varied(x: Floats, weight: Floats, _: Any, of: int) -> Floats:
    """VAR: scaled up to the variance that each token had."""
    few = pruned(x, of)
    return few * np.sqrt(x.var(axis=1) / few.var(axis=1))[:, None] @ weight.T


def lined(x: Floats, weight: Floats, line: tuple[Floats, Floats], of: int) -> Floats:
    """LS: a line through each output."""
    return pruned(x, of) @ weight.T * line[0] + line[1]


def on_weights(x: Floats, _weight: Floats, few: Floats) -> Floats:
    """Weights pruned by size, inputs whole."""
    return x @ few.T


def clact(_name: str, x: Floats, _weights: Weights) -> Floats:
    """The root mean square of each channel."""
    return np.sqrt(np.square(x).mean(axis=0))


def amber(name: str, _x: Floats, weights: Weights) -> Floats:
    """Norms of columns of the standardised weights, outliers left out of mean and deviation."""
    low, high = np.quantile(weights[name], ROBUST)
    inside = weights[name][(weights[name] >= low) & (weights[name] <= high)]
    return np.linalg.norm((weights[name] - inside.mean()) / inside.std(), axis=0)


def line_of(name: str, x: Floats, weights: Weights, of: int) -> tuple[Floats, Floats]:
    """The slope and offset of least error of each output."""
    wanted, given = x @ weights[name].T, pruned(x, of) @ weights[name].T
    middle, centre = given.mean(axis=0), wanted.mean(axis=0)
    slope = ((given - middle) * (wanted - centre)).sum(axis=0) / np.square(given - middle).sum(
        axis=0
    )
    return slope, centre - slope * middle


def rules() -> dict[str, Rule]:
    """By name, the plain patterns first."""
    found = {f"{n}:{m}": Rule(partial(act, of=m)) for n, m in PATTERNS}
    found["half of each token"] = Rule(partial(act, of=None))
    for name, of in (("2:4", 4), ("8:16", 16)):
        spts = lambda _name, x, _weights: np.median(x, axis=1).mean()  # noqa: E731
        lpts = lambda _name, x, _weights: x.mean(axis=0)  # noqa: E731
        found |= {
            f"{name}, CLACT": Rule(partial(act, of=of), clact),
            f"{name}, Amber": Rule(partial(act, of=of), amber),
            f"{name}, D-PTS": Rule(partial(around, of=of)),
            f"{name}, S-PTS": Rule(partial(around, of=of), spts),
            f"{name}, L-PTS": Rule(partial(around, of=of), lpts),
            f"{name}, VAR": Rule(partial(varied, of=of)),
            f"{name}, LS": Rule(partial(lined, of=of), partial(line_of, of=of)),
            f"{name} of weights": Rule(on_weights, partial(_fewer, of=of)),
        }
    found["half of each row of weights"] = Rule(on_weights, partial(_fewer, of=None))
    return found


def _fewer(name: str, _x: Floats, weights: Weights, of: int | None) -> Floats:
    return pruned(weights[name], of)


if __name__ == "__main__":
    raise SystemExit(run(__doc__, "n_of_m", rules()))
