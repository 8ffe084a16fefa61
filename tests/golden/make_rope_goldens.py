"""Make rope.npz: frequencies and attention factors that transformers computes for rope_settings.py.

Also logits of `tiny_cases.DYNAMIC`, read at once, behind a prompt, and token by token.

Run by hand, never by the tests; needs torch and transformers (the goldens are of 5.24.0):

    python tests/golden/make_rope_goldens.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "shared")]

import rope_settings  # noqa: E402
import tiny  # noqa: E402
import tiny_cases  # noqa: E402


def logits_of(model: Any, ids: list[int], first: int) -> np.ndarray:
    """Of every position, (positions, vocab_size): `first` tokens at once, the others singly."""
    cache, rows = DynamicCache(), []
    spans = [(0, first), *((at, at + 1) for at in range(first, len(ids)))]
    with torch.no_grad():
        for start, stop in spans:
            out = model(torch.tensor([ids[start:stop]]), past_key_values=cache, use_cache=True)
            rows.append(out.logits[0].float().numpy())
    return np.concatenate(rows)


def main() -> None:
    arrays = {}
    for name, setting in rope_settings.SETTINGS.items():
        rows = []
        for length in rope_settings.LENGTHS:
            parameters = {"rope_theta": 10000.0, **setting}
            config = LlamaConfig(**rope_settings.BASE, rope_parameters=parameters)
            embedding = LlamaRotaryEmbedding(config)
            embedding(torch.zeros(1), torch.arange(length)[None])  # as a whole text, from scratch
            rows.append([*embedding.inv_freq.numpy(), embedding.attention_scaling])
        arrays[name] = np.array(rows, np.float32)  # (lengths, head_dim / 2 + 1)
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.write(Path(folder), tiny_cases.DYNAMIC)
        for first in (tiny.IDS_LENGTH, rope_settings.PROMPT, 1):
            # A model of its own each time: it remembers the longest text that it has read.
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, attn_implementation="eager"
            )
            arrays[f"dynamic after {first}"] = logits_of(model, tiny.ids_of("rope_dynamic"), first)
    np.savez_compressed(HERE / "rope.npz", **arrays)


if __name__ == "__main__":
    main()
