"""Text models inside of larger ones: where config.json has them, and what their tensors are called.

Mistral 3 and Ministral 3 come as models for text and images. Of those the decoder alone is read:
its keys of config.json and its tensors get the places that they have in a model of its own. Knows
nothing of what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.config.values import show
from sparity_edge.errors import ConfigError

TEXT = "text_config"
HOLDERS = {"mistral3": "Mistral3ForConditionalGeneration"}  # model_type -> class
OF_THE_WHOLE = ("quantization_config", "compression_config")  # keys that speak of the text model
# Beginnings of tensors, as they were published and as transformers 5 saves them: of the decoder,
# with what stands there in a model of text alone, and of other parts.
_DECODER = {
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "model.language_model.": "model.",
}
_PARTS = ("vision_tower.", "multi_modal_projector.")
_OTHERS = (*_PARTS, *(f"model.{part}" for part in _PARTS))


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content of config.json as a model of text alone would have it.

    Args:
        config: the content of config.json.

    Raises:
        ConfigError: the model should hold a text model, and does not say which.
    """
    if not is_nested(config):
        return config
    inner = config.get(TEXT)
    if not isinstance(inner, Mapping):
        raise ConfigError(
            f"config.json: {TEXT}={show(inner)} is not a JSON object, but the model is one of text "
            "and images; fetch the file again."
        )
    tied = config.get("tie_word_embeddings")  # transformers asks the outer one alone
    carried = {key: config[key] for key in OF_THE_WHOLE if key in config}
    return {
        "model_type": "mistral",
        **inner,
        **carried,
        "tie_word_embeddings": True if tied is None else tied,
    }


def is_nested(config: Mapping[str, Any]) -> bool:
    """Whether config.json is of a model that holds a text model which may be read.

    Args:
        config: the content of config.json.
    """
    stated, architectures = config.get("model_type"), config.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else architectures
    if isinstance(name, str):
        return name in HOLDERS.values()
    return isinstance(stated, str) and stated in HOLDERS


def text_name(name: str) -> str | None:
    """What a tensor is called in a model of text alone; None: it belongs to another part.

    Args:
        name: as a file has it.
    """
    if name.startswith(_OTHERS):
        return None
    for start, own in _DECODER.items():
        if name.startswith(start):
            return own + name.removeprefix(start)
    return name
