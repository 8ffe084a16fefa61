"""transformers in a process of its own: logits and greedy text of a folder, for forms.py.

Run with whichever Python has torch and transformers. In float32 with eager attention, always over
the whole text, so that nothing of a KV cache is shared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from serving import serve


class Oracle:
    """One folder at a time; more threads than one only wait for each other, so small it is."""

    @torch.inference_mode()
    def compute(self, folder: str, ids: list[int], tokens: int, out: str) -> dict[str, Any]:
        """Write the logits (positions, vocab_size) of some ids; the greedy tokens behind them."""
        torch.set_num_threads(1)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        greedy: list[int] = []
        for _ in range(tokens):
            rows = model(torch.tensor([ids + greedy]), use_cache=False).logits[0]
            if not greedy:
                np.save(out, rows.numpy())
            greedy.append(int(rows[-1].argmax()))
        return {"greedy": greedy, "transformers": transformers.__version__}


if __name__ == "__main__":
    serve(Oracle)
