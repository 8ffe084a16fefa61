"""Text models inside of models for text and images: the decoder is read, whatever it is called."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_edits import edit, refused
from quantised_files import quantise
from safetensors_files import put_together, taken_apart

from converters.sources import open_source

VISION = ("vision_tower.patch_conv.weight", "multi_modal_projector.norm.weight")
CLASS = "Mistral3ForConditionalGeneration"


def nest(folder: Path, rename: Callable[[str], str], **outer: Any) -> Path:
    """Make a checkpoint the decoder of a larger one."""

    def wrap(config: dict[str, Any]) -> None:
        text = dict(config)
        quantised = {key: text.pop(key) for key in ("quantization_config",) if key in text}
        config.clear()
        config.update({"architectures": [CLASS], "model_type": "mistral3", "text_config": text})
        config.update({"vision_config": {"hidden_size": 8}, **quantised, **outer})

    edit(folder / "config.json", wrap)
    add(folder / "model.safetensors", VISION, rename)
    return folder


def add(path: Path, names: Iterable[str], rename: Callable[[str], str] = str) -> None:
    """Put one number more into a file for each name, and rename all."""
    text, data = taken_apart(path)
    header = json.loads(text)
    for name in names:
        span = [len(data), len(data) + 4]
        header[name] = {"dtype": "F32", "shape": [1], "data_offsets": span}
        data += bytes(4)
    named = {rename(name): each for name, each in header.items() if name != "__metadata__"}
    put_together(path, json.dumps(named).encode(), data, 8)


def published(name: str) -> str:
    return name if name in VISION else f"language_model.{name}"


def saved(name: str) -> str:
    if name in VISION:
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)


@pytest.mark.parametrize("rename", [published, saved])
@pytest.mark.parametrize("case", ["ministral3_queries", "mistral_nemo"])
def test_the_decoder_of_a_larger_model(
    checkpoint: Callable[[str], Path],
    folder: Callable[[str], Path],
    case: str,
    rename: Callable[[str], str],
) -> None:
    nested = nest(folder(case), rename, tie_word_embeddings=False)
    with open_source(str(checkpoint(case))) as plain, open_source(str(nested)) as source:
        assert source.config == plain.config
        assert source.shapes() == plain.shapes()
        assert all(np.array_equal(source.read(name), plain.read(name)) for name in plain.shapes())
        assert list(source.notes) == ["2 tensors of the part for images are not read."]


def test_the_outer_config_says_whether_the_head_is_tied(folder: Callable[[str], Path]) -> None:
    """Where it says nothing the head is tied, but one that is stored goes before it."""
    nested = nest(folder("ministral3_window"), published)
    edit(nested / "config.json", lambda config: config["text_config"].pop("tie_word_embeddings"))
    with open_source(str(nested)) as source:
        assert source.config.tie_word_embeddings
    edit(nested / "config.json", lambda config: config.update(tie_word_embeddings=False))
    refused(nested, r"lm_head\.weight .*missing")


def test_refusals(folder: Callable[[str], Path]) -> None:
    nested = nest(folder("mistral_nemo"), saved)
    edit(nested / "config.json", lambda config: config["text_config"].update(model_type="gemma3"))
    edit(nested / "config.json", lambda config: config["text_config"].pop("architectures"))
    refused(nested, r"model_type='gemma3' is not supported: it has norms")
    edit(nested / "config.json", lambda config: config.update(text_config=[]))
    refused(nested, r"text_config=\[\] is not a JSON object")
    edit(nested / "config.json", lambda config: config.update(architectures=["LlavaForAnything"]))
    refused(nested, r"architectures='LlavaForAnything' is not supported: it has images or sound")


def test_float8_as_ministral_is_published(folder: Callable[[str], Path], tmp_path: Path) -> None:
    plain = folder("ministral3_queries")
    linears = quantise(plain, "fp8-all")
    scales = [name.replace("weight", "activation_scale") for name in linears]
    add(plain / "model.safetensors", scales)
    shutil.copytree(plain, tmp_path / "nested")
    nested = nest(tmp_path / "nested", published, tie_word_embeddings=False)
    with open_source(str(plain)) as source, open_source(str(nested)) as inner:
        assert inner.config == source.config
        assert inner.shapes() == source.shapes()
        for name in linears:
            np.testing.assert_array_equal(inner.read(name), source.read(name))
