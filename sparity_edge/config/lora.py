"""LoRA in config.json: the one key that a packed folder with LoRA adapters beside weights has.

Of quantised weights W the product B A of an adapter is kept beside W, in two matrices of its rank;
weights in floats have it added to them (`converters.adapters`). Knows ranks and names, no numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparity_edge.config.values import MAX_DIMENSION, show
from sparity_edge.errors import ConfigError

LORA_KEY = "sparity_edge_lora"
LORA_A, LORA_B = "lora_a", "lora_b"  # tensors beside a linear: (rank, inputs) and (outputs, rank)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LINEAR = re.compile(r"(0|[1-9][0-9]{0,4})\.([a-z_.]{1,40})", re.ASCII)


@dataclass(frozen=True)
class Lora:
    """LoRA adapters that are kept beside the weights, added up."""

    adapters: str  # SHA-256, in hex, of what they hold and their scales
    ranks: tuple[tuple[str, int], ...]  # ("3.self_attn.q_proj", 16): of layer 3, in order

    def rank(self, layer: int, linear: str) -> int:
        """The rank beside a linear, named as in `LAYER_LINEARS`; 0: nothing stands there.

        Args:
            layer: its number.
            linear: one of `LAYER_LINEARS`.
        """
        return dict(self.ranks).get(f"{layer}.{linear}", 0)

    @property
    def on_neurons(self) -> bool:
        """Whether up or down has one, which bundles have no place for."""
        return any(name.endswith(("mlp.up_proj", "mlp.down_proj")) for name, _ in self.ranks)


def lora(config: Mapping[str, Any], layers: int, linears: tuple[str, ...]) -> Lora | None:
    """What config.json says of LoRA adapters; None: there are none beside the weights.

    Args:
        config: the decoded config.json.
        layers: how many there are.
        linears: those of a layer.

    Raises:
        ConfigError: the key is there and does not hold what it should.
    """
    value = config.get(LORA_KEY)
    if value is None:
        return None
    if isinstance(value, Mapping) and set(value) == {"adapters", "ranks"}:
        adapters, ranks = value["adapters"], value["ranks"]
        if isinstance(adapters, str) and _SHA256.fullmatch(adapters) and isinstance(ranks, Mapping):
            pairs = tuple((str(name), rank) for name, rank in ranks.items())
            if pairs and all(_is_rank(*pair, layers, linears) for pair in pairs):
                return Lora(adapters, pairs)
    raise ConfigError(
        f"config.json: {LORA_KEY}={show(value)} is not the SHA-256 of LoRA adapters and their "
        "ranks by linear; convert the model again, with --lora."
    )


def _is_rank(name: str, rank: Any, layers: int, linears: tuple[str, ...]) -> bool:
    found = _LINEAR.fullmatch(name)
    known = found is not None and int(found[1]) < layers and found[2] in linears
    return known and type(rank) is int and 0 < rank <= MAX_DIMENSION
