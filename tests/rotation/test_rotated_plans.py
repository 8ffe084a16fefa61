"""LaRoSA from text to tokens: bases found and folded, plans on the dial, the same as masking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packing import pack_folder
from plan_families import masked_and_sparse

from converters.calibrate import calibrate
from converters.methods.family import LEVELS
from converters.methods.larosa import RATES
from converters.pack import convert
from converters.pack_options import PackOptions
from converters.rotate import rotated
from converters.rotation.bases import find_bases
from converters.store import open_any
from sparity_edge import Generator
from sparity_edge.errors import FormatError, OptionError
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.facts import facts_of
from sparity_edge.model.layer_run import LayerRun, Vectors
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import add_plan, fingerprint, read_plan
from sparity_edge.text.default_text import default_documents

NAMES = ("larosa", "larosa-static")
KINDS = ("global", "layers")
IDS = np.random.default_rng(0).integers(5, 280, 200).tolist()
WINDOWS = np.random.default_rng(3).integers(5, 288, (4, 100))


@pytest.fixture(scope="module")
def folders(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A tiny model rotated in both ways, with LaRoSA's plans."""
    model, found = str(checkpoint("llama_gqa")), {}
    for kind in KINDS:
        with rotated(open_any(model), model, kind, threads=2) as source:
            out = tmp_path_factory.mktemp("larosa") / kind
            found[kind] = convert(source, out, PackOptions("f32", layout="input"))
        calibrate(str(out), tokens=16384, methods=NAMES, threads=2)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_bases_are_principal_components(kind: str, checkpoint: Callable[[str], Path]) -> None:
    packed = open_packed(checkpoint_pack(checkpoint))
    bases = find_bases(packed, WINDOWS, kind, threads=2)
    moments = []
    with LayerRun(Model(packed, ReferenceMachine(), 128), WINDOWS) as run:
        for layer, weights in enumerate(run.model.decoder.layers):
            x = run.residual.astype(np.float64)[:, 4:].reshape(-1, 64)
            parts = [x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5)]

            norm = weights.norms.before_ffn[:64]

            def keep(vectors: Vectors, parts: Any = parts, norm: Any = norm) -> None:
                n = vectors.mlp_in.astype(np.float64) / norm
                parts.append(n[max(0, 4 - vectors.position) :])

            run.run(layer, keep)
            moments.append(sum(n.T @ n for n in parts))
    if kind == "global":
        moments = [sum(moments)] * len(moments)
    for basis, moment in zip(bases, moments, strict=True):
        turned = basis.T.astype(np.float64) @ moment @ basis
        values = np.linalg.eigvalsh(moment)[::-1]
        np.testing.assert_allclose(turned, np.diag(values), rtol=0, atol=1e-4 * values[0])
        np.testing.assert_allclose(basis.T @ basis, np.eye(64), rtol=0, atol=1e-5)


def checkpoint_pack(checkpoint: Callable[[str], Path]) -> Path:
    folder = checkpoint("llama_gqa")
    out = folder.parent / "packed for its bases"
    return out if out.exists() else pack_folder(folder, out, "f32")


@pytest.mark.parametrize("kind", KINDS)
def test_rates_are_the_published_ones(kind: str, folders: dict[str, Path]) -> None:
    tables = {name: read_plan(open_folder(folders[kind]), name).tables for name in NAMES}
    for linear, table in tables["larosa"].items():
        share = 1.2 if linear in ("o_proj", "down_proj") else 0.8
        np.testing.assert_allclose(RATES[linear][20], share * LEVELS[20])
        levels = read_plan(open_folder(folders[kind]), "larosa").levels
        expected = np.minimum(share * levels[1:], 0.97)
        np.testing.assert_allclose(table[1:, 0], expected, rtol=1e-3)
    plan = read_plan(open_folder(folders[kind]), "larosa").at_level(0.5)
    for first, second in (("q_proj", "k_proj"), ("q_proj", "v_proj"), ("gate_proj", "up_proj")):
        assert plan.layers[0][first].value == plan.layers[0][second].value, "one mask for both"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_sparse_kernels_equal_masking(kind: str, name: str, folders: dict[str, Path]) -> None:
    packed = open_packed(folders[kind])
    plan = read_plan(open_folder(folders[kind]), name).at_level(0.4)
    masked, sparse = masked_and_sparse(packed, plan, IDS[:40])
    assert np.abs(sparse - masked).max() < 1e-4 * np.abs(masked).max()


@pytest.mark.parametrize(("name", "sparsity"), list(zip(NAMES, (0.2, 0.35))))
@pytest.mark.parametrize("kind", KINDS)
def test_the_dial_keeps_its_word(
    sparsity: float, kind: str, name: str, folders: dict[str, Path]
) -> None:
    with Generator.load(folders[kind], threads=1, sparse_prefill=True) as generator:
        generator.set_plan(name, sparsity=sparsity)
        text = "\n".join(default_documents()[-200:])  # of the kind that it is calibrated on
        list(generator.logits(generator.loaded.tokenizer.encode(text)[:250]))
        assert generator.active_weight_fraction == pytest.approx(1 - sparsity, abs=0.02)


def test_adapters_count(folders: dict[str, Path]) -> None:
    """What they add is read whatever is skipped, and a dense pack has none of it."""
    tables = {kind: read_plan(open_folder(path), "larosa") for kind, path in folders.items()}
    model = Model(open_packed(folders["layers"]), ReferenceMachine(), 64)
    share = 4 * 64 * 64 / model.dense_layer_bytes
    assert model.layer_bytes > model.dense_layer_bytes
    facts = {
        kind: facts_of(open_folder(path), None, max_context=1, cache_dtype="f32",
                       cache_bytes_per_token=0, threads=1)
        for kind, path in folders.items()
    }  # fmt: skip
    assert {kind: (each["rotation"], each["adapter_bytes"]) for kind, each in facts.items()} == {
        "global": ("global", 0), "layers": ("layers", model.layer_bytes - model.dense_layer_bytes)
    }  # fmt: skip
    for level in (0.4, 0.6):
        read = {kind: 1 - table.at_level(level).sparsity for kind, table in tables.items()}
        assert read["layers"] - read["global"] == pytest.approx(share, abs=1e-3)


def test_a_plan_belongs_to_its_bases(folders: dict[str, Path]) -> None:
    opened = {kind: open_folder(path) for kind, path in folders.items()}
    assert fingerprint(opened["global"]) != fingerprint(opened["layers"])
    with pytest.raises(FormatError, match="another model"):
        add_plan(opened["global"], read_plan(opened["layers"], "larosa"))


@pytest.mark.parametrize("name", NAMES)
def test_plans_for_what_is_not_rotated_are_refused(
    name: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model = str(pack_folder(checkpoint("llama_gqa"), tmp_path / "plain", "f32", "input"))
    with pytest.raises(OptionError, match="--layout input --rotate layers"):
        calibrate(model, tokens=1024, methods=[name])


def test_a_rotated_folder_moves_with_its_plans(folders: dict[str, Path], tmp_path: Path) -> None:
    with open_any(str(folders["layers"])) as source:
        out = convert(source, tmp_path / "moved", PackOptions(layout="input"))
    assert fingerprint(open_folder(out)) == fingerprint(open_folder(folders["layers"]))
    assert read_plan(open_folder(out), "larosa").name == "larosa"


def test_no_gradients_through_adapters(folders: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match="residual_adapters"):
        calibrate(str(folders["layers"]), tokens=1024, methods=["auto"], threads=2)
