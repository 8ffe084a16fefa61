"""LoRA adapters against peft (golden/make_lora_goldens.py): merged into floats, beside integers."""

from __future__ import annotations

import json
from pathlib import Path

import lora_adapters as adapters
import numpy as np
import pytest
import tiny
from stepwise import all_logits

from converters import rotate
from converters.adapters.names import with_adapters
from converters.calibrate import calibrate
from sparity_edge import Generator, SamplingParams
from sparity_edge.arrays import Floats
from sparity_edge.cli.main import main
from sparity_edge.errors import OptionError
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_packed

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "lora.npz")
IDS = tiny.ids_of(adapters.CHECKPOINT)
# Of the largest logit: products of integer weights round their activations to 16 bits.
TOLERANCE = {"floats": 1e-4, "fused": 1e-5, "quantised": 4e-4}
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {kind: adapters.model(place / kind, kind) for kind in adapters.MODELS}


def named(place: Path, kind: str, name: str) -> list[str]:
    """The adapters `TOGETHER[name]` as they are typed."""
    return [
        f"{adapters.build(place / f'{kind}-{each}', each, kind)}:{scale}"
        for each, scale in adapters.TOGETHER[name]
    ]


def logits_of(model: Model, step: int) -> Floats:
    logits = all_logits(model, IDS, step)
    return logits[:, np.linspace(0, logits.shape[1] - 1, tiny.COLUMNS).astype(int)]


@pytest.mark.parametrize(("kind", "name"), adapters.pairs())
def test_logits_are_those_of_peft(
    kind: str, name: str, models: dict[str, Path], tmp_path: Path
) -> None:
    golden = GOLDEN[f"{kind}/{name}"]
    lora, dtype = named(tmp_path, kind, name), None if kind == "quantised" else "f32"
    with Generator.load(
        models[kind], dtype=dtype, threads=2, cache_dtype="f32", lora=lora
    ) as generator:
        model = generator.loaded.model
        for step in (len(IDS), 7, 1):
            found = logits_of(model, step)
            assert np.abs(found - golden).max() < TOLERANCE[kind] * np.abs(golden).max()
        reference = logits_of(Model(open_packed(generator.path), ReferenceMachine(), 64), 40)
    assert np.abs(reference - golden).max() < TOLERANCE[kind] * np.abs(golden).max()


def test_integers_keep_their_numbers(models: dict[str, Path], tmp_path: Path) -> None:
    options = {"threads": 1, "cache_dtype": "f32", "full_head": True}
    with Generator.load(models["quantised"], **options) as plain:
        packed = plain.loaded.model.packed
    lora = named(tmp_path, "quantised", "all")
    with Generator.load(models["quantised"], **options, lora=lora) as generator:
        facts, model = generator.info(), generator.loaded.model
    for name, tensor in packed.tensors.items():
        mine = model.packed.tensors[name]
        data = [each if isinstance(each, np.ndarray) else each.data for each in (tensor, mine)]
        assert np.array_equal(*data), name
    assert facts["source"].startswith(f"{models['quantised']} --lora ")
    assert facts["parameters"] == plain.info()["parameters"] + sum(
        each.size for each in adapters.tensors("all", "quantised").values()
    )
    beside = {name: each for name, each in model.packed.layouts.items() if ".lora_" in name}
    assert {each.dtype for name, each in beside.items() if ".lora_a" in name} == {"bf16"}
    assert model.layer_bytes > sum(each.nbytes for each in beside.values())


def test_an_adapter_that_changes_is_packed_anew(models: dict[str, Path], tmp_path: Path) -> None:
    place = adapters.build(tmp_path / "a", "attention", "floats")

    def path(*lora: str) -> Path:
        with Generator.load(models["floats"], threads=1, full_head=True, lora=lora) as generator:
            return generator.path

    first = path(str(place))
    assert first == path(f"{place}:1") == path(str(place))
    others = {path(), path(f"{place}:0.5"), path(str(place), str(place)), path(f"{place}:-1")}
    adapters.build(place, "wide", "floats")
    assert len({first, path(str(place)), *others}) == 6


def test_plans_skip_weights_and_no_adapter(models: dict[str, Path], tmp_path: Path) -> None:
    model = with_adapters(str(models["quantised"]), named(tmp_path, "quantised", "all"))
    with pytest.raises(OptionError, match="up and down stored together"):
        calibrate(model, methods=["chess"], tokens=4096)
    stored = calibrate(model, methods=["teal"], tokens=512, threads=2)
    with Generator.load(
        stored[0].folder, threads=2, cache_dtype="f32", full_head=True
    ) as generator:
        golden = GOLDEN["quantised/all"]
        found = logits_of(generator.loaded.model, 1)
        # By inputs Q5_0 and Q5_1 are stored in bytes.
        assert np.abs(found - golden).max() < 0.02 * np.abs(golden).max()
        dense = generator.generate(IDS, GREEDY)
        generator.set_plan("teal", sparsity=0.4, force=True)
        sparse = generator.generate(IDS, GREEDY)
    assert sparse.stats.active_weight_fraction < 0.8 < dense.stats.active_weight_fraction


def test_a_packed_folder_takes_one_and_is_verified(models: dict[str, Path], tmp_path: Path) -> None:
    lora = named(tmp_path, "quantised", "attention")[0]
    base, out = tmp_path / "base", tmp_path / "out"
    assert main(["convert", str(models["quantised"]), str(base)]) == 0
    assert main(["convert", str(base), str(out), "--lora", lora]) == 0
    assert main(["verify", str(out)]) == 0
    golden = GOLDEN["quantised/attention"]
    with Generator.load(out, threads=1, cache_dtype="f32", full_head=True) as generator:
        found = logits_of(generator.loaded.model, 1)
        assert np.abs(found - golden).max() < TOLERANCE["quantised"] * np.abs(golden).max()
    with pytest.raises(OptionError, match="given a LoRA adapter already"):
        Generator.load(out, lora=lora)
    config = json.loads((out / "config.json").read_text())
    assert set(config["sparity_edge_lora"]["ranks"].values()) == {4}


def test_rotation_folds_adapters_in(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    basis = np.linalg.qr(np.random.RandomState(5).standard_normal((256, 256)))[0]
    monkeypatch.setattr(rotate, "_windows", lambda *_: None)
    monkeypatch.setattr(rotate, "find_bases", lambda *_, **__: [basis.astype(np.float32)])
    lora = named(tmp_path, "quantised", "all")[0]
    out = tmp_path / "rotated"
    words = ["--rotate", "global", "--dtype", "f32", "--lora", lora]
    assert main(["convert", str(models["quantised"]), str(out), *words]) == 0
    golden = GOLDEN["quantised/all"]
    found = logits_of(Model(open_packed(out), ReferenceMachine(), 64), 40)
    assert np.abs(found - golden).max() < 1e-3 * np.abs(golden).max()
