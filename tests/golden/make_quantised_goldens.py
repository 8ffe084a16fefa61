"""Make quantised.npz: the weights that each format's own library reads from the tests' files.

Run by hand, never by the tests; needs an environment of its own, without a GPU:

    pip install torch numpy ml_dtypes "mlx[cpu]" compressed-tensors bitsandbytes transformers
    pip install --no-deps autoawq gptqmodel, and what their imports ask for
    python tests/golden/make_quantised_goldens.py

Goldens in the repository: autoawq 0.2.9, gptqmodel 7.7.0, mlx 0.32.4, compressed-tensors 0.20.1,
bitsandbytes 0.50.2. All results are float32, (outputs, inputs).
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


def awq(path: Path, block: dict[str, Any]) -> np.ndarray:
    from awq.utils.packing_utils import dequantize_gemm
    from safetensors.torch import load_file

    parts = {name.rsplit(".", 1)[1]: tensor for name, tensor in load_file(path).items()}
    scales = parts["scales"].float()  # the library computes in their type
    weights = dequantize_gemm(parts["qweight"], parts["qzeros"], scales, 4, block["group_size"])
    return weights.T.numpy()


def gptq(path: Path, block: dict[str, Any]) -> np.ndarray:
    from gptqmodel.utils.model_dequant import convert_gptq_file

    weights = convert_gptq_file(path, torch.float32, block, "cpu")
    return weights[f"{files.MODULE}.weight"].numpy()


LIBRARIES: dict[str, Callable[[Path, dict[str, Any]], np.ndarray]] = {"awq": awq, "gptq": gptq}


def main() -> None:
    arrays = {}
    for name, form in files.FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = files.write(Path(folder) / "model.safetensors", files.module(name))
            block = dict(next(iter(form.config.values())))
            weights = LIBRARIES[name.split("-", 1)[0]](path, block)
        assert weights.shape == (files.OUTPUTS, files.INPUTS)
        assert weights.dtype == np.float32
        arrays[name] = weights
        print(f"{name:18} {np.abs(weights).max():.3f}")
    np.savez_compressed(HERE / "quantised.npz", **arrays)


if __name__ == "__main__":
    main()
