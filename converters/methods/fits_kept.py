"""Fits of layers as named arrays and back, for the checkpoint of a calibration.

Names are "LAYER.METHOD.GROUP.PIECE", the piece behind its place in two digits, as plan files keep
that order; a folded matrix is its bytes, with its layout as JSON. Knows nothing of when and where
files are written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from converters.calibration.checkpoint import Arrays
from converters.calibration.histograms import Array
from converters.methods.family import LayerFit
from sparity_edge.errors import FormatError
from sparity_edge.packed.layout import Layout, PackedMatrix

GROUPS = ("taus", "kept", "weights", "centres", "predictors", "facts")
Fits = dict[str, list[LayerFit]]  # by name of the method


def fits_to(fits: Fits, residual: Array) -> Arrays:
    """Fits of the layers so far, and the residual stream behind them."""
    found = {"residual": residual}
    for method, of_layers in fits.items():
        for layer, fit in enumerate(of_layers):
            for group in GROUPS:
                for place, (piece, value) in enumerate(getattr(fit, group).items()):
                    found[f"{layer}.{method}.{group}.{place:02d}{piece}"] = np.asarray(value)
            if fit.mean is not None:
                about = json.dumps(asdict(fit.mean.layout)).encode()
                found[f"{layer}.{method}.mean.data"] = np.asarray(fit.mean.data)
                found[f"{layer}.{method}.mean.layout"] = np.frombuffer(about, np.uint8)
    return found


def fits_from(arrays: Arrays | None, methods: Sequence[str], residual: Array) -> Fits:
    """What `fits_to` was given, of no layer where there is nothing or it is damaged.

    Args:
        arrays: of the checkpoint.
        methods: names of those that are to be there.
        residual: receives the residual stream.
    """
    nothing: Fits = {name: [] for name in methods}
    try:
        if arrays is None or arrays["residual"].shape != residual.shape:
            return nothing
        parts: dict[tuple[str, int], dict[str, dict[str, Array]]] = {}
        for name, value in arrays.items():
            if name.count(".") == 3:
                layer, method, group, piece = name.split(".")
                parts.setdefault((method, int(layer)), {}).setdefault(group, {})[piece] = value
        layers = 1 + max(layer for _, layer in parts)
        found = {name: [_fit(parts[name, layer]) for layer in range(layers)] for name in methods}
    except (KeyError, ValueError, TypeError, FormatError):
        return nothing
    residual[:] = arrays["residual"]
    return found


def _fit(groups: dict[str, dict[str, Array]]) -> LayerFit:
    values: dict[str, Any] = {
        group: {name[2:]: value for name, value in sorted(groups.get(group, {}).items())}
        for group in GROUPS
    }
    values["facts"] = {name: float(value) for name, value in values["facts"].items()}
    if stored := groups.get("mean"):
        about = json.loads(stored["layout"].tobytes())
        layout = Layout(**{**about, "shape": tuple(about["shape"])})
        if stored["data"].size != layout.nbytes:
            raise ValueError("a folded matrix is cut short")
        values["mean"] = PackedMatrix(layout, stored["data"])
    return LayerFit(**values)
