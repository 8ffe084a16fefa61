"""Matrices as other programs store them quantised, by NumPy: integers and scales are random.

Each function gives the tensors of one linear by the last part of their names; `write` makes a
safetensors file of any dtype. Knows nothing of sparity_edge, nor of config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors_files import put_together

NAMES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3",
    np.dtype(np.uint8): "U8",
    np.dtype(np.int8): "I8",
    np.dtype(np.int32): "I32",
    np.dtype(np.uint32): "U32",
    np.dtype(np.int64): "I64",
}
Tensors = dict[str, np.ndarray]
BF16 = ml_dtypes.bfloat16


def write(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """A safetensors file."""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    put_together(path, json.dumps(header).encode(), data, 8)
    return path


def stream(numbers: np.ndarray, bits: int) -> np.ndarray:
    """(rows, n) integers as one stream of bits each, lowest first, in int32 words."""
    single = (numbers[..., None].astype(np.int64) >> np.arange(bits)) & 1
    rows = single.reshape(len(numbers), -1).astype(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 32)))
    return np.ascontiguousarray(np.packbits(rows, axis=1, bitorder="little")).view(np.int32)


def some_scales(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
    """Scales as of real weights, float16."""
    return np.exp(random.normal(-5, 0.7, shape)).astype(np.float16)


def awq(random: np.random.RandomState, outputs: int, inputs: int, group: int) -> Tensors:
    """AWQ, version GEMM; nibble n of a word holds output 0, 2, 4, 6, 1, 3, 5, 7 of eight."""

    def words(numbers: np.ndarray) -> np.ndarray:
        order = [0, 2, 4, 6, 1, 3, 5, 7]
        return stream(numbers.reshape(len(numbers), -1, 8)[..., order].reshape(numbers.shape), 4)

    groups = inputs // group
    return {
        "qweight": words(random.randint(0, 16, (inputs, outputs))),
        "qzeros": words(random.randint(0, 16, (groups, outputs))),
        "scales": some_scales(random, (groups, outputs)),
    }


def gptq(
    random: np.random.RandomState, outputs: int, inputs: int, *, bits: int = 4, group: int = 64,
    first: bool = True, zero: int | None = None, order: bool = False,
) -> Tensors:  # fmt: skip
    """GPTQ; version 1 stores zero points less 1."""
    groups = inputs // group if group > 0 else 1
    zeros = np.full((groups, outputs), zero)
    if zero is None:  # 0 would borrow from the next number, which not all programs read alike
        zeros = random.randint(1, 1 << bits, (groups, outputs))
    g_idx = np.arange(inputs, dtype=np.int32) // (inputs // groups)
    numbers = random.randint(0, 1 << bits, (outputs, inputs))
    return {
        "qweight": np.ascontiguousarray(stream(numbers, bits).T),
        "qzeros": stream(zeros - first, bits),
        "scales": some_scales(random, (groups, outputs)),
        "g_idx": random.permutation(g_idx) if order else g_idx,
    }


def mlx(
    random: np.random.RandomState, outputs: int, inputs: int, bits: int, group: int, storage: Any
) -> Tensors:
    """MLX: scales of either sign, and the bias at that end of the range that is farther from 0."""
    shape = outputs, inputs // group
    scales = some_scales(random, shape) * random.choice([-1, 1], shape)
    biases = -scales * random.uniform(0.4, 0.6, shape) * (1 << bits)
    words = stream(random.randint(0, 1 << bits, (outputs, inputs)), bits)
    return {
        "weight": words.view(np.uint32),
        "scales": scales.astype(storage),
        "biases": biases.astype(storage),
    }


def fp8(
    random: np.random.RandomState, outputs: int, inputs: int, part: str, shape: Any, storage: Any
) -> Tensors:
    """Float8, and scales in `part`: of a shape, or by blocks of (rows, columns) in a list."""
    if isinstance(shape, list):
        shape = -(-outputs // shape[0]), -(-inputs // shape[1])
    elif shape == "rows":
        shape = outputs, 1
    numbers = random.normal(0, 40, (outputs, inputs)).astype(np.float32)
    return {
        "weight": numbers.astype(ml_dtypes.float8_e4m3fn),
        part: np.asarray(np.exp(random.normal(-9, 0.7, shape))).astype(storage),
    }


def packed(
    random: np.random.RandomState, outputs: int, inputs: int, bits: int, group: int, zeros: bool
) -> Tensors:
    """compressed-tensors, pack-quantized; integers and zero points with half their range added."""
    groups = inputs // group if group > 0 else 1
    tensors = {
        "weight_packed": stream(random.randint(0, 1 << bits, (outputs, inputs)), bits),
        "weight_scale": some_scales(random, (outputs, groups)).astype(BF16),
        "weight_shape": np.array([outputs, inputs], np.int64),
    }
    if zeros:
        points = stream(random.randint(0, 1 << bits, (groups, outputs)), bits)
        tensors["weight_zero_point"] = np.ascontiguousarray(points.T)
    return tensors


def in_bytes(random: np.random.RandomState, outputs: int, inputs: int) -> Tensors:
    """compressed-tensors, int-quantized: signed bytes, a scale each row."""
    return {
        "weight": random.randint(-128, 128, (outputs, inputs)).astype(np.int8),
        "weight_scale": some_scales(random, (outputs, 1)).astype(BF16),
    }


# Quantiles of the normal distribution (Dettmers et al., 2023), as bitsandbytes has them.
NF4_TABLE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip


def nf4(random: np.random.RandomState, outputs: int, inputs: int, nested: bool) -> Tensors:
    """bitsandbytes nf4 in blocks of 64, their largest values in bytes if `nested`."""
    blocks = outputs * inputs // 64
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [outputs, inputs]}
    tensors = {
        "weight": random.randint(0, 256, (outputs * inputs // 2, 1)).astype(np.uint8),
        "weight.absmax": np.exp(random.normal(-3, 0.3, blocks)).astype(np.float32),
        "weight.quant_map": np.array(NF4_TABLE, np.float32),
    }
    if nested:
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.0625}
        tensors["weight.absmax"] = random.randint(0, 256, blocks).astype(np.uint8)
        scales = random.uniform(0.01, 0.05, -(-blocks // 256))
        tensors["weight.nested_absmax"] = scales.astype(np.float32)
        tensors["weight.nested_quant_map"] = np.linspace(-1, 1, 256).astype(np.float32)
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    return {**tensors, "weight.quant_state.bitsandbytes__nf4": text}
