"""Gradients of the decoder against finite differences, for every feature of a config."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packing import pack_folder
from tiny import ids_of

from converters.calibration.gradient import backward
from converters.calibration.gradient_layer import LayerFloats, Slopes
from converters.calibration.observe import dense_model
from sparity_edge.config.activation import Activation
from sparity_edge.model.layer_run import LayerRun, Vectors
from sparity_edge.model.opening import open_packed
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.plan import LINEARS, SITES
from sparity_edge.progress import silent

CASES = (
    "llama_tied",
    "llama_untied",
    "llama_gqa",
    "llama_biases",
    "llama_llama3",
    "llama_odd",
    "mistral_window",
    "qwen2_window",
    "llama_relu",
    "llama_gqa drelu",
    "granite_constants",
    "qwen3_window",
    "smollm3_interval",
    "phi3_longrope",
    "olmo2_few_keys",
)
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "drelu": {"activation": Activation("relu", up=True)},
    "fatrelu": {"activation": Activation("fatrelu", 0.3)},
}


@pytest.fixture
def packed(
    request: pytest.FixtureRequest, checkpoint: Callable[[str], Path], tmp_path: Path
) -> tuple[PackedModel, Any]:
    """A tiny model with float32 weights, and two windows of tokens for it."""
    name, _, variant = request.param.partition(" ")
    model = open_packed(pack_folder(checkpoint(name), tmp_path / "packed", "f32"))
    model = replace(model, config=replace(model.config, **VARIANTS[variant]))
    ids = ids_of(name)
    return model, np.array([ids[:20], ids[20:]])


def collect(packed: PackedModel, windows: Any) -> tuple[float, dict[int, list[Slopes]]]:
    found: dict[int, list[Slopes]] = {}
    return backward(packed, windows, found.__setitem__), found


@pytest.mark.parametrize("packed", CASES, indirect=True)
def test_gradients_are_the_finite_differences(
    packed: tuple[PackedModel, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, windows = packed
    labels = np.random.default_rng(1).integers(0, model.config.vocab_size, windows.size)
    left: list[int] = []
    monkeypatch.setattr("converters.calibration.gradient._sample", lambda *_: left.pop())
    plain = LayerFloats._linear
    random = np.random.default_rng(0)

    def loss(visit: Any, moved: Any = plain) -> float:
        left[:] = labels.tolist()
        with monkeypatch.context() as patch:
            patch.setattr(LayerFloats, "_linear", moved)
            return backward(model, windows, visit) * windows.size

    found: dict[int, list[Slopes]] = {}
    loss(found.__setitem__)
    for layer, linear in itertools.product(found, LINEARS):
        # Both windows are moved alike, half of the way along the gradient of one of them, so that
        # the loss changes by more than float32 rounds.
        gradients = [slopes.gradients[linear] for slopes in found[layer]]
        direction = gradients[1] / np.abs(gradients[1]).max()
        direction += random.normal(size=direction.shape).astype(np.float32) / 2
        slope = sum(float((gradient * direction).sum()) for gradient in gradients)
        step = np.float32(0.1 / max(1.0, abs(slope)))

        def moved(
            block: Any,
            name: str,
            x: Any,
            step: float,
            at: tuple[int, str] = (layer, linear),
            by: Any = direction,
        ) -> Any:
            hit = (block.layer, name) == at
            return plain(block, name, x + step * by if hit else x)

        up, down = (
            loss(lambda *_: None, functools.partialmethod(moved, step=sign * step))
            for sign in (1, -1)
        )
        assert up - down == pytest.approx(2 * step * slope, rel=0.02, abs=1e-3), linear


@pytest.mark.parametrize(
    "packed",
    [
        "llama_gqa",
        "llama_gqa drelu",
        "llama_gqa fatrelu",
        "granite_constants",
        "smollm3_interval",
        "olmo3_windows",
    ],
    indirect=True,
)
def test_vectors_are_those_that_the_kernels_compute(packed: tuple[PackedModel, Any]) -> None:
    model, windows = packed
    _, found = collect(model, windows)
    with dense_model(model, windows.shape[1], 1, silent) as dense, LayerRun(dense, windows) as run:
        for layer in range(run.layers):

            def compare(vectors: Vectors, layer: int = layer) -> None:
                for name, expected in found[layer][vectors.window].inputs.items():
                    ours = getattr(vectors, name)
                    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max(), name

            run.run(layer, compare)


@pytest.mark.parametrize("packed", ["llama_gqa"], indirect=True)
def test_inputs_are_those_of_the_linears(packed: tuple[PackedModel, Any]) -> None:
    model, windows = packed
    _, found = collect(model, windows)
    for slopes in (each for layer in found.values() for each in layer):
        for linear in LINEARS:
            assert slopes.gradients[linear].shape == slopes.inputs[SITES[linear]].shape
        assert np.array_equal(slopes.inputs["mlp_mid"], slopes.inputs["gate"] * slopes.inputs["up"])


@pytest.mark.parametrize("packed", ["llama_tied"], indirect=True)
def test_the_seed_decides_the_labels(packed: tuple[PackedModel, Any]) -> None:
    model, windows = packed
    losses = [backward(model, windows, lambda *_: None, seed=seed) for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
