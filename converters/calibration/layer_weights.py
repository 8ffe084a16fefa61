"""The weights of one decoder layer as float32, whatever they are packed as."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.calibration.histograms import Array
from converters.numbers.bundle_bytes import unpack_bundle
from converters.numbers.layout_bytes import pack_matrix, unpack_matrix
from converters.numbers.quantize import Quantized, quantize, quantize_sixes
from sparity_edge.config.lora import LORA_A, LORA_B
from sparity_edge.config.model_config import LAYER_LINEARS
from sparity_edge.packed.bundle import PackedBundle
from sparity_edge.packed.folder import PackedModel
from sparity_edge.packed.layout import SUPERBLOCK, Layout, PackedMatrix


class LayerWeights:
    """Up and down of one layer, unpacked when first asked for."""

    def __init__(self, packed: PackedModel, layer: int) -> None:
        self.packed = packed
        self._layer = f"model.layers.{layer}"
        self._prefix = f"{self._layer}.mlp"
        self._pair: tuple[Array, Array] | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """(outputs, inputs) of each linear: q_proj ... down_proj."""
        config = self.packed.config
        known = config.tensor_shapes()
        return {
            name.rpartition(".")[2]: known[f"{self._layer}.{name}.weight"] for name in LAYER_LINEARS
        }

    @property
    def up(self) -> Array:
        """W_up, (neurons, hidden)."""
        return self._up_down()[0]

    @property
    def down(self) -> Array:
        """W_down, (hidden, neurons)."""
        return self._up_down()[1]

    @property
    def has_up_bias(self) -> bool:
        """Whether u_i has a constant part."""
        return f"{self._prefix}.up_proj.bias" in self.packed.tensors

    def linear(self, name: str) -> Array:
        """A linear's weights, (outputs, inputs)."""
        if name in ("up_proj", "down_proj"):
            return self._up_down()[name == "down_proj"]
        part = "self_attn" if name[0] in "qkvo" else "mlp"
        return self._whole(self._unpacked(name, part), f"{part}.{name}")

    def packed_folded(self, matrix: Array) -> PackedMatrix:
        """A folded matrix (hidden, hidden) by outputs: floats where W_up has floats, else six bits.

        Where rows are no multiple of 256 it has the number format of W_up.
        """
        up, values, shape = self._up_layout(), matrix.astype(np.float32), _shape(matrix)
        if not up.quantized:
            layout = Layout(up.dtype, "output", shape)
            return PackedMatrix(layout, pack_matrix(values, layout))
        if shape[1] % SUPERBLOCK == 0:
            numbers = quantize_sixes(values, "a folded matrix")
        else:
            numbers = quantize(values, up.dtype, up.group, "a folded matrix")
        minimum = numbers.minimums is not None
        layout = Layout(numbers.dtype, "output", shape, numbers.group, minimum)
        return PackedMatrix(layout, pack_matrix(numbers, layout))

    def _up_layout(self) -> Layout:
        bundle = self.packed.tensors.get(f"{self._prefix}.up_down")
        if isinstance(bundle, PackedBundle):
            return bundle.layout.up
        up = self.packed.tensors[f"{self._prefix}.up_proj.weight"]
        assert isinstance(up, PackedMatrix)
        return up.layout

    def _up_down(self) -> tuple[Array, Array]:
        if self._pair is None:
            bundle = self.packed.tensors.get(f"{self._prefix}.up_down")
            if isinstance(bundle, PackedBundle):
                up, down = unpack_bundle(bundle)
            else:
                up, down = self._unpacked("up_proj"), self._unpacked("down_proj")
            self._pair = self._whole(up, "mlp.up_proj"), self._whole(down, "mlp.down_proj")
        return self._pair

    def _whole(self, weights: Quantized | Array, linear: str) -> Array:
        """A linear's weights with what the LoRA adapter beside them adds."""
        return with_adapter(self.packed, f"{self._layer}.{linear}", floats(weights))

    def _unpacked(self, linear: str, part: str = "mlp") -> Any:
        stored = self.packed.tensors[f"{self._layer}.{part}.{linear}.weight"]
        assert isinstance(stored, PackedMatrix)
        return unpack_matrix(stored.data, stored.layout)


def with_adapter(packed: PackedModel, linear: str, weights: Array) -> Array:
    """Weights of a linear, and what a LoRA adapter beside them adds.

    Args:
        packed: the model.
        linear: "model.layers.0.self_attn.q_proj".
        weights: (outputs, inputs).
    """
    b, a = (packed.tensors.get(f"{linear}.{half}.weight") for half in (LORA_B, LORA_A))
    if not isinstance(b, PackedMatrix) or not isinstance(a, PackedMatrix):
        return weights
    product = [floats(unpack_matrix(each.data, each.layout)) for each in (b, a)]
    result: Array = weights + product[0] @ product[1]
    return result


def read_matrix(packed: PackedModel, name: str, start: int = 0, stop: int | None = None) -> Array:
    """Outputs start:stop of a matrix as float32."""
    tensor = packed.tensors[name]
    assert isinstance(tensor, PackedMatrix)
    return floats(unpack_matrix(tensor.data, tensor.layout, start, stop))


def read_vector(packed: PackedModel, name: str) -> Array:
    """A norm's weights or a bias."""
    tensor = packed.tensors[name]
    assert isinstance(tensor, np.ndarray)
    return tensor


def floats(weights: Quantized | Array) -> Array:
    """Weights as float32."""
    return weights.dequantize() if isinstance(weights, Quantized) else weights


def _shape(matrix: Array) -> tuple[int, int]:
    rows, columns = matrix.shape
    return rows, columns
