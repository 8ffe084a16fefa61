"""Quantised checkpoints for tests, by form: what config.json says, and the tensors of a linear.

They are of random integers and scales that do not change (`RandomState`), so golden/quantised.npz
stays valid. Knows nothing of sparity_edge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from quantised_packers import BF16, Tensors, awq, fp8, gptq, in_bytes, mlx, nf4, packed, write
from safetensors.numpy import load_file

MODULE = "model.layers.0.mlp.up_proj"
OUTPUTS, INPUTS = 32, 192
KEPT = 3  # of so many rows the goldens have one


@dataclass(frozen=True)
class Form:
    """One form: settings of config.json, tensors by the last part of their name, our format.

    `tensors` takes random numbers, outputs and inputs.
    """

    config: Mapping[str, Any]
    tensors: Callable[[np.random.RandomState, int, int], Tensors]
    native: tuple[str, int, bool] | None


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


def _mlx(native: tuple[str, int, bool] | None, bits: int, group: int, storage: Any = BF16) -> Form:
    block = {"bits": bits, "group_size": group, "mode": "affine"}
    return Form(
        {"quantization": block}, partial(mlx, bits=bits, group=group, storage=storage), native
    )


def _fp8(shape: Any, storage: Any) -> Form:
    block = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": None}
    if isinstance(shape, list):
        block["weight_block_size"] = shape
    make = partial(fp8, part="weight_scale_inv", shape=shape, storage=storage)
    return Form({"quantization_config": block}, make, None)


def _compressed(native: Any, style: str, make: Any, **weights: Any) -> Form:
    settings = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", **weights}
    block = {
        "quant_method": "compressed-tensors",
        "format": style,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": settings}},
        "ignore": ["lm_head"],
    }
    return Form({"quantization_config": block}, make, native)


_NF4 = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
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
    "mlx-4-bit": _mlx(("int4", 64, True), 4, 64),
    "mlx-4-bit-f16": _mlx(("int4", 32, True), 4, 32, np.float16),
    "mlx-2-bit": _mlx(("int4", 64, True), 2, 64),
    "mlx-3-bit": _mlx(("int4", 64, True), 3, 64),
    "mlx-5-bit": _mlx(("int5", 32, True), 5, 64),
    "mlx-6-bit": _mlx(None, 6, 64),
    "mlx-8-bit": _mlx(None, 8, 64),
    "fp8-blocks": _fp8([16, 64], np.float32),
    "fp8-all": _fp8((), BF16),
    "packed-symmetric": _compressed(
        ("int4", 64, False), "pack-quantized", partial(packed, bits=4, group=64, zeros=False),
        group_size=64,
    ),
    "packed-zeros": _compressed(
        ("int4z", 32, True), "pack-quantized", partial(packed, bits=4, group=32, zeros=True),
        group_size=32, symmetric=False,
    ),
    "packed-8-bit": _compressed(
        ("int8", 64, False), "pack-quantized", partial(packed, bits=8, group=-1, zeros=False),
        num_bits=8, strategy="channel",
    ),
    "compressed-bytes": _compressed(
        ("int8", 64, False), "int-quantized", in_bytes, num_bits=8, strategy="channel"
    ),
    "compressed-fp8": _compressed(
        None, "float-quantized", partial(fp8, part="weight_scale", shape="rows", storage=BF16),
        num_bits=8, type="float", strategy="channel",
    ),
    "nf4-plain": Form(_NF4, partial(nf4, nested=False), None),
    "nf4-nested": Form(_NF4, partial(nf4, nested=True), None),
}  # fmt: skip
