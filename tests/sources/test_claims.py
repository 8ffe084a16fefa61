"""config.json against tensors: what transformers 5 makes of folders whose files disagree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from checkpoint_edits import edit, refused
from tiny_cases import CASES

from converters.sources import open_source
from converters.sources.claims import EMBEDDING, HEAD
from converters.sources.source import SINGLE, Source
from sparity_edge.progress import CallContext

Folder = Callable[[str], Path]
BIAS = "model.layers.0.self_attn.q_proj.bias"


def opened(path: Path) -> tuple[Source, list[str]]:
    notes: list[str] = []
    return open_source(str(path), CallContext(notify=notes.append)), notes


def rewritten(path: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
    tensors = dict(tiny.make_tensors(CASES[name]))
    change(tensors)
    tiny.write_safetensors(path / SINGLE, tensors)
    return path


def test_another_head_in_a_tied_model_is_used(folder: Folder) -> None:
    head = tiny.make_tensors(CASES["llama_tied"])[EMBEDDING][::-1].copy()
    path = rewritten(folder("llama_tied"), "llama_tied", lambda all_: all_.update({HEAD: head}))
    source, notes = opened(path)
    with source:
        assert not source.config.tie_word_embeddings
        assert source.config_json["tie_word_embeddings"] is False
        assert np.array_equal(source.read(HEAD), head)
    assert "the file's own is used" in notes[0]


def test_the_same_head_in_a_tied_model_stays_tied(folder: Folder) -> None:
    path = rewritten(
        folder("llama_tied"), "llama_tied", lambda all_: all_.update({HEAD: all_[EMBEDDING]})
    )
    source, notes = opened(path)
    with source:
        assert source.config.tie_word_embeddings
    assert notes == []


def test_a_tied_model_that_stores_its_head_only(folder: Folder) -> None:
    right = tiny.make_tensors(CASES["llama_tied"])[EMBEDDING]
    path = rewritten(
        folder("llama_tied"), "llama_tied", lambda all_: all_.update({HEAD: all_.pop(EMBEDDING)})
    )
    with opened(path)[0] as source:
        assert np.array_equal(source.read(EMBEDDING), right)
        assert source.shapes()[EMBEDDING] == right.shape


def test_a_head_of_another_size(folder: Folder) -> None:
    path = rewritten(
        folder("llama_tied"), "llama_tied", lambda all_: all_.update({HEAD: all_[EMBEDDING][:5]})
    )
    refused(path, r"lm_head.weight has shape \(5, 64\), but the configuration asks for \(288, 64\)")


def test_an_untied_model_without_a_head(folder: Folder) -> None:
    path = rewritten(folder("llama_tied"), "llama_tied", lambda all_: all_.pop(HEAD, None))
    edit(path / "config.json", lambda content: content.update(tie_word_embeddings=False))
    refused(path, "tensor lm_head.weight of shape .* is missing")


@pytest.mark.parametrize("key", ["attention_bias", "mlp_bias"])
def test_biases_of_which_none_is_stored(key: str, folder: Folder) -> None:
    path = folder("llama_tied")
    edit(path / "config.json", lambda content: content.update({key: True}))
    source, notes = opened(path)
    with source:
        assert not any(name.endswith(".bias") for name in source.config.tensor_shapes())
    assert "asks for biases" in notes[0]


def test_a_bias_that_is_not_stored_is_zero(folder: Folder) -> None:
    path = rewritten(folder("llama_biases"), "llama_biases", lambda all_: all_.pop(BIAS))
    source, notes = opened(path)
    with source:
        assert not np.any(source.read(BIAS))
        assert source.shapes()[BIAS] == source.read(BIAS).shape
    assert BIAS in notes[0]


def test_a_decoder_without_its_prefix(folder: Folder) -> None:
    path = folder("llama_tied")
    tensors = tiny.make_tensors(CASES["llama_tied"])
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    tiny.write_safetensors(path / SINGLE, bare)
    with opened(path)[0] as source:
        assert np.array_equal(source.read(EMBEDDING), tensors[EMBEDDING])


def test_fewer_layers_than_are_stored(folder: Folder) -> None:
    path = folder("llama_tied")
    stored = json.loads((path / "config.json").read_text())["num_hidden_layers"]
    edit(path / "config.json", lambda content: content.update(num_hidden_layers=stored - 1))
    source, notes = opened(path)
    source.close()
    assert f"asks for {stored - 1} layers and the file holds {stored}" in notes[0]


def test_ids_without_a_row_are_told_of(folder: Folder) -> None:
    path = folder("llama_tied")
    edit(path / "config.json", lambda content: content.update(bos_token_id=50_000))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": -1}))
    source, notes = opened(path)
    source.close()
    assert "bos_token_id=50000 is no id below vocab_size=288; it is ignored" in notes[0]
    assert "generation_config.json: eos_token_id=-1" in notes[1]
