"""LayerWeights: the weights of one decoder layer, as a machine takes them.

Which optional parts a layer has (biases, norms, a window, an adapter) its configuration says;
nothing here is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sparity_edge.arrays import Floats, padded
from sparity_edge.config.lora import LORA_A, LORA_B
from sparity_edge.config.model_config import ADAPTER, LAYER_LINEARS, QK_NORMS
from sparity_edge.errors import FormatError
from sparity_edge.kernels.machines import Machine
from sparity_edge.kernels.operations import Bundle, Matrix
from sparity_edge.packed.bundle import PackedBundle
from sparity_edge.packed.folder import PackedModel
from sparity_edge.packed.layout import PackedMatrix


@dataclass(frozen=True)
class LowRank:
    """A LoRA adapter beside a linear, which adds x A^T B^T to what that gives."""

    a: Matrix  # (rank, inputs)
    b: Matrix  # (outputs, rank)
    rank: int


@dataclass(frozen=True)
class Linear:
    """A matrix, its bias, and the LoRA adapter beside it."""

    matrix: Matrix
    bias: Floats | None
    low_rank: LowRank | None = None


class LayerNorms(NamedTuple):
    """The weights of RMSNorms about the halves of a layer, (hidden,); None: there is no such."""

    before_attention: Floats | None
    after_attention: Floats | None
    before_ffn: Floats | None
    after_ffn: Floats | None


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer, its parts named as in the checkpoint.

    Up and down are either two linears or one bundle, in which a neuron's rows stand together.
    """

    index: int
    norms: LayerNorms
    linears: dict[str, Linear]  # q_proj, k_proj ...
    bundle: Bundle | None
    window: int | None  # positions that a query sees, itself included; None: all
    q_norm: Floats | None  # of RMSNorm over each head of q, (head_dim,), or over all of them
    k_norm: Floats | None
    adapter: Matrix | None  # (hidden, hidden), into the basis of this layer from that before


def load_layer(packed: PackedModel, layer: int, machine: Machine) -> LayerWeights:
    """The layer number `layer`, its weights still where the packed model has them.

    Raises:
        FormatError: one of them is not stored as it should be.
    """
    config = packed.config
    prefix = f"model.layers.{layer}"
    stored = packed.tensors.get(f"{prefix}.mlp.up_down")
    bundle = machine.bundle(stored) if isinstance(stored, PackedBundle) else None
    linears = {}
    for name in LAYER_LINEARS:
        if bundle is not None and name in ("mlp.up_proj", "mlp.down_proj"):
            continue
        bias = vector(packed, f"{prefix}.{name}.bias") if config.has_bias(name) else None
        weight = machine.matrix(matrix(packed, f"{prefix}.{name}.weight"))
        beside = _low_rank(packed, layer, name, machine)
        linears[name.rpartition(".")[2]] = Linear(weight, bias, beside)

    def norm(name: str | None) -> Floats | None:
        return None if name is None else vector(packed, f"{prefix}.{name}.weight")

    adapter = None
    if config.residual_adapters and layer > 0:
        adapter = machine.matrix(matrix(packed, f"{prefix}.{ADAPTER}.weight"))
    return LayerWeights(
        index=layer,
        norms=LayerNorms(*map(norm, config.norms)),
        linears=linears,
        bundle=bundle,
        window=config.sliding_windows[layer],
        q_norm=norm(QK_NORMS[0] if config.qk_norm else None),
        k_norm=norm(QK_NORMS[1] if config.qk_norm else None),
        adapter=adapter,
    )


def _low_rank(packed: PackedModel, layer: int, linear: str, machine: Machine) -> LowRank | None:
    rank = 0 if packed.config.lora is None else packed.config.lora.rank(layer, linear)
    if not rank:
        return None
    a, b = (
        machine.matrix(matrix(packed, f"model.layers.{layer}.{linear}.{half}.weight"))
        for half in (LORA_A, LORA_B)
    )
    return LowRank(a, b, rank)


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
