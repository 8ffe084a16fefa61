"""Family: what an architecture declares of itself, so that reading and running it need no branch.

A family is one file in `sparity_edge/model/families/`; docs/adding-a-model.md works one through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sparity_edge.config.layer_steps import no_windows, rope_everywhere
from sparity_edge.config.norms import BEFORE, Norms, QkNorm
from sparity_edge.config.scales import Scales, no_scales

# Metadata below the architecture's name that change the result: 0, or a refusal by that key, where
# a family says nothing of it in `GgufNames.keys`.
GGUF_UNSUPPORTED = (
    "expert_count",
    "attention.clamp_kqv",
    "logit_scale",
    "embedding_scale",
    "residual_scale",
    "attention.scale",
)


@dataclass(frozen=True)
class GgufNames:
    """What llama.cpp calls a family and its parts in a GGUF file.

    Sizes, rotary base and norm epsilon have the same keys in every architecture, below its name,
    and the tensors of a Llama have the same names; here stands what a family has beside these.
    """

    architecture: str  # general.architecture
    # Rows of q and k that belong to a rotary pair stand side by side (rope type NORM of llama.cpp).
    interleaved: bool = False
    # Of families that share an architecture: the key, below its name, whose number marks this one.
    marked_by: str | None = None
    # Key of config.json -> key below the architecture's name: a number, null where it is 0 or not
    # there, or a truth value.
    keys: Mapping[str, str] = field(default_factory=dict)
    # The key that says which layers have a window: a truth value for each, or a number n where all
    # have one but every n-th.
    windows: str | None = None
    # Stem of a tensor in `blk.N` -> module in `model.layers.N`.
    tensors: Mapping[str, str] = field(default_factory=dict)
    unsupported: tuple[str, ...] = GGUF_UNSUPPORTED


@dataclass(frozen=True)
class Family:
    """A Llama decoder with what one architecture does otherwise."""

    model_type: str  # as in config.json
    architectures: tuple[str, ...]
    # What transformers takes for keys of config.json that are not there.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # False: never; True: always; a key of config.json: where it is true.
    qkv_bias: bool | str = False
    o_bias: bool | str = False
    mlp_bias: bool | str = False
    # Names of the RMSNorms about the halves of a layer.
    norms: Norms = BEFORE
    # RMSNorm of q and k before rope (q_norm and k_norm): over each of their heads, or over all.
    qk_norm: QkNorm | None = None
    # By layer: positions that a query sees, itself included; None: all.
    windows: Callable[[Mapping[str, Any], int], tuple[int | None, ...]] = no_windows
    # Whether layers with a window have a rotary embedding of their own, unstretched by default.
    rope_by_layer_type: bool = False
    # Layers whose q and k are not rotated.
    layers_without_rope: Callable[[Mapping[str, Any], int], tuple[int, ...]] = rope_everywhere
    # Constants on the embedding, on what each half of a layer adds, on the head's input, on scores.
    scales: Callable[[Mapping[str, Any], int, int], Scales] = no_scales
    # Whether up goes through the activation as the gate does (dReLU).
    activated_up: bool = False
    # config.json under the keys that a Llama has; refuses what the decoder does not do.
    plain: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    # Keys of config.json that may only be false, since the decoder does not do what they ask for.
    refused: tuple[str, ...] = ()
    # Whether a part of each head may be rotated, as partial_rotary_factor says.
    partial_rope: bool = False
    # Module of a layer as checkpoints store it -> those whose rows it holds, in this order.
    stored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gguf: GgufNames | None = None  # None: no GGUF file is read as this family

    def names_in_files(self, names: Iterable[str]) -> set[str]:
        """What tensors of a decoder may be called in a checkpoint: as they are, and as `stored`."""
        found = set(names)
        for module, held in self.stored.items():
            for each in held:
                found |= {name.replace(f".{each}.", f".{module}.") for name in found}
        return found
