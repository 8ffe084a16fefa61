"""Quantised matrices as other programs store them, packed by NumPy: one module each, by form.

`FORMS` names every form: what config.json says and the tensors of one linear. Integers and scales
are random and do not change (`RandomState`), so golden/quantised.npz stays valid. `write` makes a
safetensors file of any dtype. Knows nothing of sparity_edge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file
from safetensors_files import put_together

MODULE = "model.layers.0.mlp.up_proj"
OUTPUTS, INPUTS = 32, 192
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


@dataclass(frozen=True)
class Form:
    """One form: settings of config.json, tensors by the last part of their name, our format.

    `tensors` takes random numbers, outputs and inputs.
    """

    config: Mapping[str, Any]
    tensors: Callable[[np.random.RandomState, int, int], Tensors]
    native: tuple[str, int, bool] | None


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


def module(
    name: str, module: str = MODULE, outputs: int = OUTPUTS, inputs: int = INPUTS
) -> Tensors:
    """The tensors of a module in a form, by their full names."""
    random = np.random.RandomState(sum(f"{name}{module}".encode()))
    parts = FORMS[name].tensors(random, outputs, inputs)
    return {f"{module}.{part}": value for part, value in parts.items()}


def quantise(folder: Path, name: str) -> list[str]:
    """Put the linears of a float checkpoint of one file into a form; the names of their weights."""
    path = folder / "model.safetensors"
    tensors: Tensors = load_file(path)
    linears = [each for each in tensors if each.endswith("_proj.weight")]
    for each in linears:
        outputs, inputs = tensors.pop(each).shape
        tensors.update(module(name, each.removesuffix(".weight"), outputs, inputs))
    write(path, tensors)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **FORMS[name].config}))
    return linears


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


def _gptq(native: tuple[str, int, bool] | None, **settings: Any) -> Form:
    block = {
        "quant_method": "gptq",
        "bits": settings.get("bits", 4),
        "group_size": settings.get("group", 64),
        "desc_act": settings.get("order", False),
    }
    if not settings.get("first", True):
        block["checkpoint_format"] = "gptq_v2"
    return Form({"quantization_config": block}, partial(gptq, **settings), native)


def _awq(group: int) -> Form:
    block = {"quant_method": "awq", "bits": 4, "version": "gemm", "group_size": group}
    return Form({"quantization_config": block}, partial(awq, group=group), ("int4z", group, True))


FORMS: dict[str, Form] = {
    "awq-64": _awq(64),
    "awq-32": _awq(32),
    "gptq-symmetric": _gptq(("int4", 64, False), zero=8),
    "gptq-zeros": _gptq(("int4z", 32, True), group=32),
    "gptq-v2": _gptq(("int4z", 64, True), first=False),
    "gptq-act-order": _gptq(None, order=True),
    "gptq-rows": _gptq(("int4", 64, False), zero=8, group=-1),
    "gptq-8-bit": _gptq(("int8", 64, False), bits=8, zero=128),
    "gptq-8-bit-zeros": _gptq(None, bits=8),
    "gptq-2-bit": _gptq(("int4", 64, False), bits=2),
    "gptq-3-bit": _gptq(("int4", 64, False), bits=3, zero=4),
}
