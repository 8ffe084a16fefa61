"""Aligned memory."""

from __future__ import annotations

import pytest

from sparity_edge.arrays import aligned_empty


@pytest.mark.parametrize("nbytes", [0, 1, 64, 1000])
def test_aligned_empty(nbytes: int) -> None:
    array = aligned_empty(nbytes)
    assert array.nbytes == nbytes
    assert nbytes == 0 or array.ctypes.data % 64 == 0
