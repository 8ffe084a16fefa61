"""Kernels that different processes compiled do not mix up functions of one name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Closures too long to be put into the kernels that call them, told apart by a constant alone.
KERNELS = """
import math
import numpy as np
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.memory import load_i64, store_f32

def scaling(factor):
    @device
    def scaled(x):
        total = 0.0
        for i in range(1, 9):
            total += math.sin(x * i) * factor + math.exp(-x * i) + math.log1p(x * i) * factor
            total += math.tan(x / i) * math.atan(x * i) - math.cos(x * i) * math.sqrt(x / i)
        return total
    return scaled

one, ten = scaling(1.0), scaling(10.0)

def by_one(arguments, chunk, scratch):
    store_f32(load_i64(arguments), one(0.5) + one(0.25) + one(0.125))

def by_ten(arguments, chunk, scratch):
    store_f32(load_i64(arguments), ten(0.5) + ten(0.25) + ten(0.125))

def run(function):
    kernel = Kernel("place")(function)
    out = np.zeros(1, dtype=np.float32)
    arguments = np.array([out.ctypes.data], dtype=np.int64)
    assert kernel.address
    kernel._compiled.ctypes(int(arguments.ctypes.data), 0, 0)
    return float(out[0])
"""


def test_closures_of_one_name_keep_their_own_code(tmp_path: Path) -> None:
    (tmp_path / "pair.py").write_text(KERNELS, encoding="utf-8")
    places = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": places}

    def printed(what: str) -> str:
        script = f"import pair; print({what})"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    first, second = printed("pair.run(pair.by_one)"), printed("pair.run(pair.by_ten)")
    assert first != second
    assert printed("pair.run(pair.by_one), pair.run(pair.by_ten)") == f"{first} {second}"
    assert printed("pair.run(pair.by_ten), pair.run(pair.by_one)") == f"{second} {first}"
