"""Make quantised.npz: the weights that each format's own library reads from the tests' files.

Run by hand, never by the tests; needs an environment of its own, without a GPU:

    pip install torch numpy ml_dtypes "mlx[cpu]" compressed-tensors bitsandbytes transformers
    pip install --no-deps autoawq gptqmodel, and what their imports ask for
    python tests/golden/make_quantised_goldens.py

Goldens in the repository: autoawq 0.2.9, gptqmodel 7.7.0, mlx 0.32.4, compressed-tensors 0.20.1,
bitsandbytes 0.50.2, transformers 5.24.0. All results are float32, every third row of
(outputs, inputs).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "shared")]

import quantised_files as files  # noqa: E402
import quantised_packers as packers  # noqa: E402


def awq(path: Path, block: dict[str, Any]) -> np.ndarray:
    from awq.utils.packing_utils import dequantize_gemm

    parts = _torch_parts(path)
    scales = parts["scales"].float()  # the library computes in their type
    weights = dequantize_gemm(parts["qweight"], parts["qzeros"], scales, 4, block["group_size"])
    return weights.T.numpy()


def gptq(path: Path, block: dict[str, Any]) -> np.ndarray:
    from gptqmodel.utils.model_dequant import convert_gptq_file

    weights = convert_gptq_file(path, torch.float32, block, "cpu")
    return weights[f"{files.MODULE}.weight"].numpy()


def mlx(path: Path, block: dict[str, Any]) -> np.ndarray:
    import mlx.core as mx

    parts = {name.rsplit(".", 1)[1]: tensor for name, tensor in mx.load(str(path)).items()}
    scales, biases = (parts[name].astype(mx.float32) for name in ("scales", "biases"))
    weights = mx.dequantize(parts["weight"], scales, biases, block["group_size"], block["bits"])
    return np.array(weights)


def fp8(path: Path, _: dict[str, Any]) -> np.ndarray:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    weight, scale = _torch_parts(path)["weight"], _torch_parts(path)["weight_scale_inv"]
    return Fp8Dequantize(None)._dequantize_one(weight, scale, torch.float32).numpy()


def compressed(path: Path, block: dict[str, Any]) -> np.ndarray:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    settings = QuantizationArgs(**block["config_groups"]["group_0"]["weights"])
    scheme = QuantizationScheme(targets=["Linear"], weights=settings)
    parts = _torch_parts(path)
    parts["weight_scale"] = parts["weight_scale"].float()  # the library computes in its type
    if "weight_shape" in parts:
        parts["weight_shape"] = torch.Size(parts["weight_shape"].tolist())
    kind = BaseCompressor.get_value_from_registry(block["format"])
    return kind.decompress(parts, scheme)["weight"].numpy()


def nf4(path: Path, _: dict[str, Any]) -> np.ndarray:
    from bitsandbytes.functional import QuantState, dequantize_4bit
    from safetensors.torch import load_file

    parts = {name[len(files.MODULE) + 1 :]: tensor for name, tensor in load_file(path).items()}
    weight = parts.pop("weight")
    state = QuantState.from_dict(parts, torch.device("cpu"))
    return dequantize_4bit(weight, state).numpy()


def _torch_parts(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name.rsplit(".", 1)[1]: tensor for name, tensor in load_file(path).items()}


LIBRARIES: dict[str, Callable[[Path, dict[str, Any]], np.ndarray]] = {
    "awq": awq,
    "gptq": gptq,
    "mlx": mlx,
    "fp8": fp8,
    "packed": compressed,
    "compressed": compressed,
    "nf4": nf4,
}


def main() -> None:
    arrays = {}
    for name, form in files.FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = packers.write(Path(folder) / "model.safetensors", files.module(name))
            block = dict(next(iter(form.config.values())))
            weights = LIBRARIES[name.split("-", 1)[0]](path, block)
        assert weights.shape == (files.OUTPUTS, files.INPUTS)
        assert weights.dtype == np.float32
        arrays[name] = weights[:: files.KEPT]
        print(f"{name:18} {np.abs(weights).max():.3f}")
    np.savez_compressed(HERE / "quantised.npz", **arrays)


if __name__ == "__main__":
    main()
