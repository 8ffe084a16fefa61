"""Text models inside of models for text and images: the decoder is read, whatever it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from checkpoint_edits import edit, refused

from converters.sources import open_source

VISION = ("vision_tower.patch_conv.weight", "multi_modal_projector.norm.weight")
CLASS = "Mistral3ForConditionalGeneration"


def nest(folder: Path, case: str, rename: Callable[[str], str], **outer: Any) -> Path:
    """Make a checkpoint the decoder of a larger one."""

    def wrap(config: dict[str, Any]) -> None:
        text = dict(config)
        config.clear()
        config.update({"architectures": [CLASS], "model_type": "mistral3", "text_config": text})
        config.update({"vision_config": {"hidden_size": 8}, "image_token_index": 10, **outer})

    edit(folder / "config.json", wrap)
    tensors = tiny.make_tensors(tiny.CASES[case])
    tensors |= {name: np.ones(8, np.float32) for name in VISION}
    named = {rename(name): tensor for name, tensor in tensors.items()}
    tiny.write_safetensors(folder / "model.safetensors", named)
    return folder


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
    nested = nest(folder(case), case, rename, tie_word_embeddings=False)
    with open_source(str(checkpoint(case))) as plain, open_source(str(nested)) as source:
        assert source.config == plain.config
        assert source.shapes() == plain.shapes()
        assert all(np.array_equal(source.read(name), plain.read(name)) for name in plain.shapes())
        assert list(source.notes) == ["2 tensors of the part for images are not read."]


def test_the_outer_config_says_whether_the_head_is_tied(folder: Callable[[str], Path]) -> None:
    """Where it says nothing the head is tied, but one that is stored goes before it."""
    nested = nest(folder("ministral3_window"), "ministral3_window", published)
    edit(nested / "config.json", lambda config: config["text_config"].pop("tie_word_embeddings"))
    with open_source(str(nested)) as source:
        assert source.config.tie_word_embeddings
    edit(nested / "config.json", lambda config: config.update(tie_word_embeddings=False))
    refused(nested, r"lm_head\.weight .*missing")


def test_refusals(folder: Callable[[str], Path]) -> None:
    nested = nest(folder("mistral_nemo"), "mistral_nemo", saved)
    edit(nested / "config.json", lambda config: config["text_config"].update(model_type="gemma3"))
    edit(nested / "config.json", lambda config: config["text_config"].pop("architectures"))
    refused(nested, r"model_type='gemma3' is not supported: it has norms")
    edit(nested / "config.json", lambda config: config.update(text_config=[]))
    refused(nested, r"text_config=\[\] is not a JSON object")
    edit(nested / "config.json", lambda config: config.update(architectures=["LlavaForAnything"]))
    refused(nested, r"architectures='LlavaForAnything' is not supported: it has images or sound")
