"""What transformers computes of every tiny checkpoint, made by golden/make_goldens.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tiny

GOLDEN = {
    name: array
    for path in (Path(__file__).resolve().parents[1] / "golden" / "tiny").glob("*.npz")
    for name, array in np.load(path).items()
}
TOLERANCE = 1e-5  # of the largest logit


def assert_golden(case: str, logits: npt.NDArray[np.float32]) -> None:
    """Logits (positions, vocab_size) of `tiny.ids_of(case)` are those of transformers."""
    columns = np.linspace(0, logits.shape[1] - 1, tiny.COLUMNS).astype(int)
    allowed = TOLERANCE * float(GOLDEN[f"{case}/largest"])
    assert np.abs(logits[:, columns] - GOLDEN[f"{case}/columns"]).max() < allowed
    assert np.abs(logits[-1] - GOLDEN[f"{case}/last"]).max() < allowed
