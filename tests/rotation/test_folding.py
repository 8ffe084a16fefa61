"""Rotation folded into weights: each tensor against plain NumPy, and logits that stay the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from packing import INT4, FakeSource, pack_folder
from rotations import random_bases
from stepwise import all_logits

from converters.rotation.rotated import RotatedSource
from sparity_edge import Generator
from sparity_edge.errors import OptionError
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.forward_pass import ForwardPass
from sparity_edge.model.layer_run import LayerRun
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_packed

KINDS = ("global", "layers")
CASES = (
    "llama_tied",
    "llama_biases",
    "llama_odd",
    "llama_sharded",
    "qwen2_plain",
    "mistral_window",
)


def plainly(source: FakeSource, bases: list[Any], name: str) -> Any:
    """A rotated tensor, from its definition in float64."""
    before = name.rpartition(".")[0]

    def values(key: str) -> Any:
        return source.weights(key).astype(np.float64)

    if name == "model.embed_tokens.weight":
        return values(name) @ bases[0]
    if name == "lm_head.weight":
        return values(name) @ np.diag(values("model.norm.weight")) @ bases[-1]
    if "norm" in name:
        return np.ones(source.config.hidden_size)
    layer = int(name.split(".")[2])
    if "adapter" in name:
        return bases[layer].T @ bases[layer - 1]
    if before.endswith(("o_proj", "down_proj")):
        return bases[layer].T @ values(name)
    if name.endswith("bias"):
        return values(name)
    norm = "post_attention" if ".mlp." in name else "input"
    weight = values(f"model.layers.{layer}.{norm}_layernorm.weight")
    return values(name) @ np.diag(weight) @ bases[layer]


@pytest.mark.parametrize("native", [None, INT4])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors(kind: str, native: Any) -> None:
    source = FakeSource({"proj": native} if native else None)
    bases = random_bases(source, kind)
    rotated = RotatedSource(source, kind, bases)
    names = rotated.shapes()
    assert ("model.layers.1.residual_adapter.weight" in names) == (kind == "layers")
    assert "model.layers.0.residual_adapter.weight" not in names
    for name, shape in names.items():
        expected = plainly(source, [each.astype(np.float64) for each in bases], name)
        found = rotated.read(name)
        assert isinstance(found, np.ndarray)
        assert found.shape == shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
        part = rotated.read(name, 3, 17)
        np.testing.assert_allclose(part, found[3:17], rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_model(
    kind: str,
    case: str,
    rotate: Callable[..., Path],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    ids = tiny.ids_of(case)
    plain = open_packed(pack_folder(checkpoint(case), tmp_path / "plain", "f32"))
    expected = all_logits(Model(plain, ReferenceMachine(), 64), ids, len(ids))
    packed = open_packed(rotate(case, kind))
    for machine, step in (
        (ReferenceMachine(), 40),
        (ThreadedMachine(2), 40),
        (ThreadedMachine(2), 1),
    ):
        model = Model(packed, machine, 64, "f32")
        found = all_logits(model, ids, step)
        model.close()
        assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("case", ["llama_biases", "llama_sharded"])
def test_layer_by_layer_is_the_same(case: str, threaded: bool, rotate: Callable[..., Path]) -> None:
    machine = ThreadedMachine(2) if threaded else ReferenceMachine()
    model = Model(open_packed(rotate(case, "layers")), machine, 64, "f32")
    windows = np.random.default_rng(0).integers(5, 280, (3, 30))
    whole = ForwardPass(model.decoder, machine, 1, 30, 1)
    model.kv_cache.reserve(30)
    expected = []
    for window in windows:
        model.kv_cache.trim(0)
        whole.run(window.tolist(), [model.kv_cache])
        expected.append(whole.buffers.x.copy())
    with LayerRun(model, windows) as run:
        for layer in range(run.layers):
            run.run(layer)
        largest = np.abs(expected).max()
        assert np.abs(run.residual - np.array(expected)).max() < 1e-5 * largest
    model.close()


@pytest.mark.parametrize("layout", ["dense", "neurons", "mixed", "input"])
def test_quantised_in_any_layout(layout: str, rotate: Callable[..., Path]) -> None:
    with Generator.load(rotate("llama_gqa", "layers", "int8", layout), threads=2) as generator:
        found = np.concatenate(list(generator.logits(tiny.ids_of("llama_gqa"))))
        model = generator.loaded.model
        adapter = model.layer_bytes - model.dense_layer_bytes
    assert np.isfinite(found).all()
    if layout == "dense":
        assert adapter == 64 * 128, "in bf16"


def test_what_is_rotated_is_not_rotated_again(rotate: Callable[..., Path]) -> None:
    from converters.store import open_any

    source = open_any(str(rotate("llama_gqa", "global")))
    with pytest.raises(OptionError, match="rotated already"):
        RotatedSource(source, "global", random_bases(source, "global"))
    source.close()
