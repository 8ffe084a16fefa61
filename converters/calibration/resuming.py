"""What stages of a calibration leave in a checkpoint, as named arrays and back.

A stage that goes layer by layer leaves what it found of the layers so far and what the next one
needs: the gradient on the way back, the residual stream on the way through. Names are
"LAYER.PIECE.WHAT". Knows nothing of when and where files are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from converters.calibration.checkpoint import Arrays
from converters.calibration.fisher import PieceCosts
from converters.calibration.gradient import Halfway
from converters.calibration.histograms import Array

Costs = dict[int, Mapping[str, PieceCosts]]
Counted = list[tuple[Mapping[str, Array], Array | None]]


def gradients_to(costs: Costs, at: Halfway) -> Arrays:
    """Costs of the layers so far, and where the backward pass stands."""
    found = {"at": np.array(at.layer), "slopes": at.slopes, "losses": at.losses}
    for layer, pieces in costs.items():
        for piece, each in pieces.items():
            for field in fields(each):
                value = getattr(each, field.name)
                if value is not None:
                    found[f"{layer}.{piece}.{field.name}"] = value
    return found


def gradients_from(arrays: Arrays | None) -> tuple[Costs, Halfway | None]:
    """What `gradients_to` was given; nothing where there is nothing or it is damaged."""
    if arrays is None:
        return {}, None
    parts: dict[int, dict[str, dict[str, Array | None]]] = {}
    try:
        for name, value in arrays.items():
            if name.count(".") == 2:
                layer, piece, what = name.split(".")
                of_piece = parts.setdefault(int(layer), {}).setdefault(piece, {"centre": None})
                of_piece[what] = value
        costs: Costs = {
            layer: {piece: PieceCosts(**each) for piece, each in pieces.items()}  # type: ignore[arg-type]
            for layer, pieces in parts.items()
        }
        at = Halfway(int(arrays["at"]), arrays["slopes"], arrays["losses"])
    except (KeyError, ValueError, TypeError):
        return {}, None
    return costs, at


def counted_to(counted: Counted, residual: Array) -> Arrays:
    """Thresholds and centres of the layers so far, and the residual stream behind them."""
    found = {"residual": residual, "layers": np.array(len(counted))}
    for layer, (taus, centre) in enumerate(counted):
        found |= {f"{layer}.{piece}.taus": each for piece, each in taus.items()}
        if centre is not None:
            found[f"{layer}.gates.centre"] = centre
    return found


def counted_from(arrays: Arrays | None, residual: Array) -> Counted:
    """What `counted_to` was given, nothing where there is nothing or it is damaged.

    Args:
        arrays: of the checkpoint.
        residual: receives the residual stream.
    """
    try:
        if arrays is None or arrays["residual"].shape != residual.shape:
            return []
        found: Counted = []
        for layer in range(int(arrays["layers"])):
            start, end = f"{layer}.", ".taus"
            taus = {
                name.removeprefix(start).removesuffix(end): each
                for name, each in arrays.items()
                if name.startswith(start) and name.endswith(end)
            }
            found.append((taus, arrays.get(f"{layer}.gates.centre")))
    except (KeyError, ValueError, TypeError):
        return []
    residual[:] = arrays["residual"]
    return found
