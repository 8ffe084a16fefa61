"""Ids from outside are rows of the embedding before they reach a kernel."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converters.calibrate import calibrate
from converters.pack import convert
from converters.pack_options import PackOptions
from converters.store import open_any
from sparity_edge import FormatError, Generator, OptionError, SamplingParams, SourceError
from sparity_edge.model.layer_run import LayerRun
from sparity_edge.quality.scoring import score

CASE = "llama_tied"


@pytest.fixture(scope="module")
def generator(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint(CASE), dtype="f32", threads=1) as loaded:
        yield loaded


@pytest.fixture
def beyond(generator: Generator) -> int:
    return generator.config.vocab_size


def give_an_id_beyond(folder: Path) -> int:
    """Rewrite tokenizer.json so that "e" has the first id that is no row; returns that id."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    content["model"]["vocab"]["e"] = rows
    file.write_text(json.dumps(content))
    return int(rows)


@pytest.fixture
def other_tokenizer(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint(CASE), folder)
    give_an_id_beyond(folder)
    return folder


def test_a_checkpoint_with_another_tokenizer_is_refused(
    other_tokenizer: Path, beyond: int, tmp_path: Path
) -> None:
    numbers = rf"'e' the id {beyond}, .* {beyond} ids from 0 to {beyond - 1}"
    with pytest.raises(SourceError, match=numbers):
        Generator.load(other_tokenizer, dtype="f32", threads=1)
    with (
        open_any(str(other_tokenizer)) as source,
        pytest.raises(SourceError, match=numbers),
    ):
        convert(source, tmp_path / "out", PackOptions(dtype="f32"))


def test_a_packed_folder_with_another_tokenizer_is_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "packed"
    with open_any(str(checkpoint(CASE))) as source:
        convert(source, folder, PackOptions(dtype="f32", layout="neurons"))
    give_an_id_beyond(folder)
    manifest = json.loads((folder / "sparity.json").read_text())
    manifest["files"]["tokenizer.json"]["size"] = (folder / "tokenizer.json").stat().st_size
    (folder / "sparity.json").write_text(json.dumps(manifest))
    with pytest.raises(SourceError, match="the id"):
        Generator.load(folder, threads=1)
    text = tmp_path / "text.txt"
    text.write_text("the reader " * 5000)
    with pytest.raises(SourceError, match="the id"):
        calibrate(str(folder), texts=[text], tokens=4096, methods=["cats"], threads=1)


@pytest.mark.parametrize("far", [0, 10**6, 2**62])
def test_the_model_refuses_ids_whoever_asks(generator: Generator, beyond: int, far: int) -> None:
    model = generator.loaded.model
    for token in (beyond + far, -1 - far):
        model.kv_cache.trim(0)
        with pytest.raises(OptionError, match="outside the vocabulary"):
            model.read([1, token])
        with pytest.raises(OptionError, match="outside the vocabulary"):
            list(model.read_all_logits([token]))
        with pytest.raises(OptionError, match="outside the vocabulary"):
            model.read_together([token, 1], [model.new_kv_cache(), model.new_kv_cache()])
        with pytest.raises(OptionError, match="outside the vocabulary"):
            LayerRun(model, np.array([[1, token]]))
        with pytest.raises(OptionError, match="outside the vocabulary"):
            list(generator.logits([token]))
        with pytest.raises(OptionError, match="outside the vocabulary"):
            score(generator, [1], [[2, token]])
        with pytest.raises(OptionError):
            generator.generate([1], SamplingParams(logit_bias={token: 1.0}, max_tokens=1))
    assert len(generator.generate([1, 2], SamplingParams(max_tokens=1, seed=0)).token_ids) == 1


@pytest.mark.parametrize("far", [0, 2**40])
def test_a_saved_kv_cache_with_other_ids_is_refused(
    generator: Generator, beyond: int, far: int, tmp_path: Path
) -> None:
    from safetensors import safe_open

    file = tmp_path / "cache.safetensors"
    generator.generate([5, 6, 7], SamplingParams(max_tokens=2, seed=0, ignore_eos=True))
    generator.save_cache(file)
    with safe_open(str(file), framework="np") as saved:
        metadata = saved.metadata()
    for token in (beyond + far, -1 - far):
        tensors = load_file(file)
        tensors["ids"][1] = token
        save_file(tensors, tmp_path / "other.safetensors", metadata)
        with pytest.raises(FormatError, match=f"outside of 0 to {beyond - 1}"):
            generator.load_cache(tmp_path / "other.safetensors")
    generator.load_cache(file)
    assert generator.loaded.model.kv_cache.ids[:3] == [5, 6, 7]
