"""Where config.json and the tensors of a checkpoint disagree: what transformers 5 makes of it.

A head that is stored goes before one that is said to be tied; an embedding that is not stored is
the tied head; a bias that is claimed and not stored is zero. Everything else that does not fit is
refused by the caller. Knows no file format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sparity_edge.config.model_config import ModelConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_BIASES = {"attention_bias": "self_attn", "mlp_bias": "mlp"}  # key of config.json -> module
ROWS = 4096  # compared at a time

Shapes = Mapping[str, tuple[int, ...]]
Read = Callable[[str, int, int], Any]


def stored_names(names: Any, tied: bool) -> dict[str, str]:
    """Names that the decoder asks for, and under which name each tensor is stored.

    Args:
        names: of the tensors that are stored.
        tied: whether config.json says that head and embedding are one.
    """
    bare = "embed_tokens.weight" in names  # a decoder saved without what makes it a language model
    own = {f"model.{name}" if bare and name != HEAD else name: name for name in names}
    if tied and EMBEDDING not in own and HEAD in own:
        own[EMBEDDING] = own.pop(HEAD)
    return own


def without_absent_biases(config: Mapping[str, Any], names: Any) -> dict[str, Any]:
    """config.json without a claim of biases of which not one is stored.

    Args:
        config: the content of config.json.
        names: of the tensors that are stored.
    """
    stored = {
        name.rsplit(".", 3)[1] for name in names if name.count(".") > 3 and name.endswith(".bias")
    }
    absent = [
        key for key, module in _BIASES.items() if module not in stored and config.get(key) is True
    ]
    return {**config, **dict.fromkeys(absent, False)}


def head_differs(shapes: Shapes, read: Read) -> bool:
    """Whether a head is stored that is not the embedding."""
    if HEAD not in shapes or EMBEDDING not in shapes:
        return False
    rows = shapes[EMBEDDING][0] if shapes[EMBEDDING] else 0
    if shapes[HEAD] != shapes[EMBEDDING]:
        return True
    return not all(
        np.array_equal(
            np.asarray(read(HEAD, start, start + ROWS), np.float32),
            np.asarray(read(EMBEDDING, start, start + ROWS), np.float32),
        )
        for start in range(0, rows, ROWS)
    )


def absent_biases(config: ModelConfig, names: Any) -> dict[str, tuple[int, ...]]:
    """Biases that the configuration asks for and nobody stored, with their shapes."""
    expected = config.tensor_shapes().items()
    return {name: shape for name, shape in expected if name.endswith(".bias") and name not in names}


def remarks(
    config: ModelConfig, source: Mapping[str, Any], generation: Mapping[str, Any], shapes: Shapes
) -> list[str]:
    """Sentences on what is ignored: token ids without a row, and layers beyond the last one.

    Args:
        config: the parsed configuration.
        source, generation: the contents of config.json and generation_config.json.
        shapes: of all tensors.
    """
    said = []
    for file, content in (("config.json", source), ("generation_config.json", generation)):
        for key in ("bos_token_id", "eos_token_id"):
            value = content.get(key)
            stray = [
                token
                for token in (value if isinstance(value, list) else [value])
                if isinstance(token, int | float) and not 0 <= token < config.vocab_size
            ]
            if stray:
                said.append(
                    f"{file}: {key}={stray[0]} is no id below vocab_size={config.vocab_size}; "
                    "it is ignored."
                )
    layers = {name.split(".")[2] for name in shapes if name.startswith("model.layers.")}
    if len(layers) > config.num_hidden_layers:
        said.append(
            f"config.json asks for {config.num_hidden_layers} layers and the file holds "
            f"{len(layers)}; the others are not used."
        )
    return said
