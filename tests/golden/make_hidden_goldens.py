"""Make hidden.npz: last hidden states that transformers computes of tiny checkpoints, pooled.

Run by hand, never by the tests; needs torch and transformers (the goldens are of 5.24.0):

    python tests/golden/make_hidden_goldens.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import tiny  # noqa: E402

# With a factor on the way into the head, and with keys rotated by the length of the text.
CASES = ("granite_constants", "rope_longrope")


def main() -> None:
    arrays = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            model = AutoModel.from_pretrained(
                tiny.build(Path(folder), name), dtype=torch.float32, attn_implementation="eager"
            )
            with torch.no_grad():
                states = model(torch.tensor([tiny.ids_of(name)])).last_hidden_state[0].numpy()
        arrays[f"{name}/mean"] = states.mean(axis=0)  # (hidden_size,)
        arrays[f"{name}/last"] = states[-1]
    np.savez_compressed(HERE / "hidden.npz", **arrays)


if __name__ == "__main__":
    main()
