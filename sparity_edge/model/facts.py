"""What there is to know about a model, ready for JSON, whether its weights are in memory or not.

Sizes and number formats stand in the headers of a packed folder: `UnreadModel` stands for a model
of which nothing else is read, and can be told to follow a plan like one that is in memory. Knows
nothing of how a model is found.
"""

from __future__ import annotations

import math
from typing import Any

from sparity_edge.config.model_config import ADAPTER, ModelConfig
from sparity_edge.model.zero_gates import skipped_always
from sparity_edge.packed.bundle import BundleLayout
from sparity_edge.packed.folder import PackedFolder, PackedModel
from sparity_edge.packed.manifest import notes_in
from sparity_edge.plans.added_bytes import added_bytes
from sparity_edge.plans.plan import SparsityPlan


class UnreadModel:
    """A packed folder that is open: its plan can be chosen, and nothing can be computed.

    Args:
        packed: the folder.
    """

    def __init__(self, packed: PackedFolder) -> None:
        self.packed = packed
        self._plan: SparsityPlan | None = None

    @property
    def plan(self) -> SparsityPlan | None:
        """What decoding would skip."""
        return self._plan

    def set_plan(self, plan: SparsityPlan | None) -> None:
        """Note what would be skipped; None, and a plan that skips nothing: everything is read."""
        self._plan = plan if plan is not None and any(plan.layers) else None


def facts_of(
    packed: PackedFolder | PackedModel,
    plan: SparsityPlan | None,
    *,
    max_context: int,
    cache_dtype: str,
    cache_bytes_per_token: int,
    threads: int,
    load_seconds: float | None = None,
) -> dict[str, Any]:
    """What `Generator.info` gives.

    Args:
        packed: the model.
        plan: what decoding skips.
        max_context: positions of the KV cache.
        cache_dtype: number format of the KV cache.
        cache_bytes_per_token: bytes of one of its positions.
        threads: how many compute.
        load_seconds: what reading the weights took; None: they were not read.
    """
    config, manifest = packed.config, packed.manifest
    return {
        "path": str(packed.path),
        "source": manifest.get("source"),
        "options": manifest.get("options"),
        **({"notes": notes} if (notes := notes_in(manifest)) else {}),
        "weight_bytes": packed.nbytes,
        **({} if load_seconds is None else {"load_seconds": load_seconds}),
        "model_type": config.model_type,
        "parameters": _parameters(config),
        "dtypes": dtypes_of(packed),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "attention_heads": config.num_attention_heads,
        "key_value_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "model_context": config.model_context,
        "max_context": max_context,
        "cache_dtype": cache_dtype,
        "cache_bytes_per_token": cache_bytes_per_token,
        "threads": threads,
        "activation": str(config.activation),
        **_rotation(packed),
        **({} if (always := skipped_always(packed)) is None else {"always_skipped": always}),
        "sparsity": 0.0 if plan is None else plan.sparsity,
        **({} if plan is None else _of_plan(plan)),
    }


def _rotation(packed: PackedFolder | PackedModel) -> dict[str, Any]:
    """The basis of the residual stream, and the bytes of adapters that every token reads."""
    rotation = packed.config.rotation
    if rotation is None:
        return {}
    adapters = sum(each.nbytes for name, each in packed.layouts.items() if ADAPTER in name)
    return {"rotation": rotation.kind, "adapter_bytes": adapters}


def _of_plan(plan: SparsityPlan) -> dict[str, Any]:
    added = added_bytes(plan)  # read for every token, whatever it skips
    return {"plan": plan.name, "level": plan.level, **({"plan_bytes": added} if added else {})}


def dtypes_of(packed: PackedFolder | PackedModel) -> list[str]:
    """The number formats of the matrices, sorted."""
    found = set()
    for each in packed.layouts.values():
        parts = (each.up, each.down) if isinstance(each, BundleLayout) else (each,)
        found |= {part.dtype for part in parts}
    return sorted(found)


def _parameters(config: ModelConfig) -> int:
    """Numbers in all matrices."""
    return sum(math.prod(shape) for shape in config.tensor_shapes().values() if len(shape) == 2)
