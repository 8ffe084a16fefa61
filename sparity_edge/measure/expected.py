"""What decoding a token has to read, found without loading a weight.

Decoding waits for memory: bytes a second over bytes of a token bounds tokens a second. Keys and
values are left out, so the bound is that of a short context.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparity_edge.packed.shards import TensorSpec, spec_nbytes

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Llama 3 8B, the model that most comparisons of local runtimes start from.
LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}


def bytes_of_a_folder(path: Path) -> int:
    """Bytes that a token takes of a packed folder.

    Raises:
        FormatError, ConfigError: the folder is damaged.
    """
    from sparity_edge.packed.folder import open_folder

    return _bytes_of({name: stored.spec for name, stored in open_folder(path).tensors.items()})


def bytes_of_llama_8b(dtype: str) -> int:
    """Bytes that a token of Llama 3 8B would take if it were packed as `dtype`."""
    from converters.pack import PackOptions, choose_layout
    from sparity_edge.config.model_config import ModelConfig

    options = PackOptions(dtype)
    shapes = ModelConfig.from_dict(LLAMA_8B).tensor_shapes()
    return _bytes_of(
        {
            name: choose_layout(name, (shape[0], shape[1]), None, options)
            for name, shape in shapes.items()
            if len(shape) == 2
        }
    )


def _bytes_of(tensors: Mapping[str, TensorSpec]) -> int:
    """All but the embedding, of which one row is read, unless it is the head as well."""
    skipped = {EMBEDDING} if HEAD in tensors else set()
    return sum(spec_nbytes(spec) for name, spec in tensors.items() if name not in skipped)
