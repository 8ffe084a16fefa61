"""GGUF files of every family: are our logits those of llama.cpp, from the same file?

Run by hand, never by the tests, where llama-cpp-python can be imported (0.3.36):

    PYTHONPATH=.:tests:tests/shared:tests/sources python tests/golden/compare_gguf.py

The files are those of test_family_gguf, in F32, and so are both KV caches. llama.cpp leaves the
windows of Phi-3 out, so files have none; of longrope it takes the long factors for all of a context
that may become long, as we do for a long text, so the text is longer than the original length.
Printed is the largest difference of each, as a part of the largest logit.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
import tiny
from gguf_families import ARCHITECTURES, write
from test_family_gguf import CASES, logits_of

ALLOWED = 1e-5


def theirs(path: Path, ids: list[int]) -> np.ndarray:
    """(positions, vocab_size) of llama.cpp."""
    model = llama_cpp.Llama(
        str(path), n_ctx=128, logits_all=True, type_k=0, type_v=0, verbose=False
    )
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def main() -> int:
    """Compare all families."""
    different = 0
    changes = {"sliding_window": 0, "original_max_position_embeddings": tiny.IDS_LENGTH - 1}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder) / "a.gguf", name, changes=changes)
            ours, expected = logits_of(path, name), theirs(path, tiny.ids_of(name))
        error = float(np.abs(ours - expected).max() / np.abs(expected).max())
        print(f"{ARCHITECTURES[tiny.family_of(name)][0]:10} {error:.1e}")
        different += error > ALLOWED
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
