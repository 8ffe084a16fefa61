"""A tiny model, and the vectors that methods see, computed by plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from converters.calibration.statistics import FIRST, SAMPLE_STEP
from converters.pack_options import PackOptions
from converters.store import prepare
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.layer_run import LayerRun, Vectors
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_packed
from sparity_edge.packed.folder import PackedModel

Array = npt.NDArray[Any]
SITE_NAMES = ("attn_in", "attn_out", "mlp_in", "mlp_mid")


@pytest.fixture(scope="session")
def windows() -> Array:
    """Calibration text: six windows of 200 tokens."""
    return np.random.default_rng(3).integers(5, 288, (6, 200))


@pytest.fixture(scope="session")
def packed(checkpoint: Callable[[str], Path]) -> PackedModel:
    """A tiny Qwen2 with float32 weights, whose inputs can be skipped."""
    options = PackOptions(dtype="f32", layout="input")
    return open_packed(prepare(str(checkpoint("qwen2_plain")), options))


@pytest.fixture(scope="session")
def raw(packed: PackedModel, windows: Array) -> list[dict[str, Array]]:
    """By layer: the vectors of each site for every token but the first ones, (tokens, channels)."""
    return _vectors(packed, windows, lambda position: position >= FIRST)


@pytest.fixture(scope="session")
def sampled(packed: PackedModel, windows: Array) -> list[dict[str, Array]]:
    """By layer: the vectors of each site at every SAMPLE_STEP-th position, (tokens, channels)."""
    return _vectors(packed, windows, lambda position: position % SAMPLE_STEP == SAMPLE_STEP - 1)


def _vectors(
    packed: PackedModel, windows: Array, wanted: Callable[[int], bool]
) -> list[dict[str, Array]]:
    layers = []
    with LayerRun(Model(packed, ReferenceMachine(), 256), windows) as run:
        for layer in range(run.layers):
            parts: dict[str, list[Array]] = {name: [] for name in SITE_NAMES}

            def keep(vectors: Vectors, parts: dict[str, list[Array]] = parts) -> None:
                for name, each in parts.items():
                    values = np.array(getattr(vectors, name), dtype=np.float64)
                    chosen = [wanted(vectors.position + i) for i in range(len(values))]
                    each.append(values[chosen])

            run.run(layer, keep)
            layers.append({name: np.concatenate(each) for name, each in parts.items()})
    return layers
