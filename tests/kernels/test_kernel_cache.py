"""Kernels are kept on disk where that is possible, and run where it is not."""

from __future__ import annotations

import errno
import os
from typing import Any

import numpy as np
import pytest
from numba.core.caching import FunctionCache

from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.program.team import Team
from sparity_edge.kernels.simd.memory import load_i64, store_f32


def write_one(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """1.0 to the place that the first argument names."""
    store_f32(load_i64(arguments), 1.0)


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FunctionCache, "load_overload", lambda *_: None)
    monkeypatch.setattr(FunctionCache, "save_overload", full)
    out = np.zeros(1, dtype=np.float32)
    arguments = np.array([out.ctypes.data], dtype=np.int64)
    kernel = Kernel("place")(write_one)
    assert kernel.address
    kernel._compiled.ctypes(int(arguments.ctypes.data), 0, 0)
    assert out[0] == 1
    Team.compile()
