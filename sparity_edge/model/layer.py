"""Block: the weights of one decoder block, as a machine takes them."""

from __future__ import annotations

from dataclasses import dataclass

from sparity_edge.arrays import Floats, padded
from sparity_edge.config.model_config import LAYER_LINEARS, ModelConfig
from sparity_edge.errors import FormatError
from sparity_edge.kernels.operations import Bundle, Machine, Matrix
from sparity_edge.packed.bundle import PackedBundle
from sparity_edge.packed.folder import PackedModel
from sparity_edge.packed.layout import PackedMatrix


@dataclass(frozen=True)
class Linear:
    """A matrix and its bias."""

    matrix: Matrix
    bias: Floats | None


@dataclass(frozen=True)
class Block:
    """One decoder block, its parts named as in the checkpoint.

    Up and down are either two linears or one bundle, in which a neuron's rows stand together.
    """

    input_layernorm: Floats
    linears: dict[str, Linear]  # q_proj, k_proj ...
    post_attention_layernorm: Floats
    bundle: Bundle | None
    window: int | None


def load_block(packed: PackedModel, config: ModelConfig, layer: int, machine: Machine) -> Block:
    """The block `layer`, its weights still where the packed model has them."""
    prefix = f"model.layers.{layer}"
    stored = packed.tensors.get(f"{prefix}.mlp.up_down")
    bundle = machine.bundle(stored) if isinstance(stored, PackedBundle) else None
    linears = {}
    for name in LAYER_LINEARS:
        if bundle is not None and name in ("mlp.up_proj", "mlp.down_proj"):
            continue
        bias = vector(packed, f"{prefix}.{name}.bias") if config.has_bias(name) else None
        weight = machine.matrix(matrix(packed, f"{prefix}.{name}.weight"))
        linears[name.rpartition(".")[2]] = Linear(weight, bias)
    return Block(
        input_layernorm=vector(packed, f"{prefix}.input_layernorm.weight"),
        linears=linears,
        post_attention_layernorm=vector(packed, f"{prefix}.post_attention_layernorm.weight"),
        bundle=bundle,
        window=config.sliding_windows[layer],
    )


def matrix(packed: PackedModel, name: str) -> PackedMatrix:
    """A matrix of a packed model by its name.

    Raises:
        FormatError: there is none.
    """
    tensor = packed.tensors.get(name)
    if not isinstance(tensor, PackedMatrix):
        raise FormatError(f"{packed.path}: {name} is not a packed matrix; convert the model again.")
    return tensor


def vector(packed: PackedModel, name: str) -> Floats:
    """A vector of a packed model by its name, padded for kernels.

    Raises:
        FormatError: there is none.
    """
    tensor = packed.tensors.get(name)
    if tensor is None or isinstance(tensor, PackedMatrix | PackedBundle):
        raise FormatError(f"{packed.path}: {name} is not a vector; convert the model again.")
    return padded(tensor)
