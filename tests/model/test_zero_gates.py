"""The ReLU family: what its members compute, and zero gates that are skipped without a change."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import plain_decoder
import pytest
import tiny
from stepwise import all_logits
from tiny_cases import Case

from converters.calibrate import calibrate
from converters.pack import convert
from converters.pack_options import PackOptions
from converters.sources import open_source
from converters.store import prepare
from sparity_edge import Generator, OptionError, SamplingParams
from sparity_edge.cli.commands.answering import header
from sparity_edge.cli.commands.doctor import _models as models_of_doctor
from sparity_edge.cli.commands.plan import plan_list, plan_show
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_packed
from sparity_edge.packed.bundle import PackedBundle

MINICPM = {
    "architectures": ["MiniCPMForCausalLM"],
    "model_type": "minicpm",
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 32,
    "tie_word_embeddings": True,
}
FATRELU = {"hidden_act": "fatrelu", "hidden_act_param": 0.3}
RELU = {"hidden_act": "relu", "intermediate_size": 330, "num_key_value_heads": 2}
BAMBOO = {"architectures": ["BambooForCausalLM"], "model_type": "bamboo"}
PREDICTOR = ("model.layers.0.mlp.predictor.fc1.weight", "model.layers.0.mlp.predictor.fc2.weight")
CASES = {
    "relu": Case(RELU),
    "prosparse": Case(
        {"architectures": ["SparseLlamaForCausalLM"], "model_type": "sparsellama"} | FATRELU
    ),
    "minicpm": Case(MINICPM),
    "minicpm-s": Case(MINICPM | FATRELU | {"num_key_value_heads": 2}),
    "bamboo": Case(BAMBOO | RELU, extra=PREDICTOR),
}
ZEROES = [name for name in CASES if name != "minicpm"]
IDS = [1, *np.random.RandomState(3).randint(5, tiny.TOKENIZER_SIZE, 30).tolist()]
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Writes the checkpoint of a case, once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            path = made[name] = tmp_path_factory.mktemp(name)
            tiny.write_json(path / "config.json", tiny.config_of(CASES[name]))
            tiny.write_tokenizer(path, CASES[name])
            tiny.write_safetensors(path / "model.safetensors", tiny.make_tensors(CASES[name]))
        return made[name]

    return folder


@pytest.mark.parametrize("layout", ["dense", "ffn", "neurons", "mixed", "input"])
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_papers(
    name: str, layout: str, build: Build, tmp_path: Path
) -> None:
    with open_source(str(build(name))) as source:
        folder = convert(source, tmp_path / "out", PackOptions("f32", layout=layout))
    expected, _ = plain_decoder.logits(
        tiny.make_tensors(CASES[name]), tiny.config_of(CASES[name]), IDS
    )
    model = Model(open_packed(folder), ThreadedMachine(2), 64)
    for step in (len(IDS), 5, 1):
        assert np.abs(all_logits(model, IDS, step) - expected).max() < 1e-4 * np.abs(expected).max()
    model.close()


@pytest.mark.parametrize("dtype", ["f32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("name", ZEROES)
def test_skipping_zero_gates_changes_no_bit(
    name: str, dtype: str, build: Build, tmp_path: Path
) -> None:
    with open_source(str(build(name))) as source:
        packed = open_packed(convert(source, tmp_path / "out", PackOptions(dtype)))
    models = [Model(packed, ThreadedMachine(threads), 64) for threads in (1, 2, 5)]
    models[-1]._always = None  # reads everything
    results = [all_logits(model, IDS, step) for model in models for step in (1, 4)]
    for result in results:
        assert np.array_equal(result, results[0])
    skipping, _, reading = models
    assert skipping.active_weight_fraction < reading.active_weight_fraction
    for model in models:
        model.close()


def test_a_model_with_relu_skips_by_default_and_says_so(build: Build) -> None:
    with Generator.load(str(build("relu")), dtype="f32", threads=2) as generator:
        stored = generator.loaded.model.packed.tensors
        assert isinstance(stored["model.layers.0.mlp.up_down"], PackedBundle)
        info = generator.info()
        assert info["options"]["layout"] == "ffn"
        assert info["activation"] == "ReLU"
        assert info["always_skipped"] == "neurons whose gate is zero (ReLU)"
        assert "neurons whose gate is zero (ReLU) skipped" in header(generator)[1]
        assert generator.plan is None
        assert generator.sparsity == 0
        all_logits(generator.loaded.model, IDS, 1)
        _, active = plain_decoder.logits(
            tiny.make_tensors(CASES["relu"]), tiny.config_of(CASES["relu"]), IDS
        )
        assert 0.3 < np.mean(active) < 0.7
        assert generator.densities["gate"] < 0.7
        assert generator.active_weight_fraction < 0.95


def test_a_model_with_silu_is_packed_as_before(build: Build) -> None:
    with Generator.load(str(build("minicpm")), dtype="f32", threads=1) as generator:
        info = generator.info()
        assert (info["options"]["layout"], info["activation"]) == ("dense", "SiLU")
        assert "always_skipped" not in info


@pytest.mark.parametrize("name", ZEROES)
def test_plans_are_made_and_followed(name: str, build: Build, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(tiny.TRAINING_TEXT) * 40)
    folder = str(build(name))
    for each in calibrate(folder, texts=[str(text)], methods=["chess", "auto"], tokens=2048):
        with Generator.load(str(each.folder), threads=1) as generator:
            whole = generator.generate(IDS, GREEDY)
            unasked = generator.active_weight_fraction
            generator.set_plan(each.family.name, sparsity=each.family.most * 0.9, force=True)
            generator.generate(IDS, GREEDY)
            assert generator.active_weight_fraction < unasked + 0.02
            generator.set_plan(sparsity=0)
            assert generator.generate(IDS, GREEDY).token_ids == whole.token_ids


def test_zero_gates_of_a_batch_change_no_bit(build: Build) -> None:
    with Generator.load(str(build("bamboo")), dtype="int8", threads=2) as generator:
        prompts = [IDS[:9], IDS[5:16], IDS[2:20]]
        together = generator.generate_batch(prompts, GREEDY)
        alone = [generator.generate(prompt, GREEDY) for prompt in prompts]
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]


def test_commands_say_what_is_skipped(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(prepare(str(build("bamboo")), PackOptions()))
    plan_list(Namespace(model=folder, json=False))
    assert "neurons whose gate is zero (dReLU) are skipped" in capsys.readouterr().out
    with pytest.raises(OptionError, match=r"no plans; .* neurons whose gate is zero \(dReLU\)"):
        plan_show(Namespace(model=folder, name=None, json=False))
    assert models_of_doctor(folder)[0].name.endswith(
        "(neurons whose gate is zero (dReLU) read, too)"
    )


def test_centred_gates_are_for_silu(build: Build, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(tiny.TRAINING_TEXT) * 40)
    with pytest.raises(OptionError, match=r"Centred gates are for SiLU\. Gates of ReLU"):
        calibrate(str(build("relu")), texts=[str(text)], methods=["centred"], tokens=2048)
