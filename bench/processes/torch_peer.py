"""transformers on PyTorch in a process of its own: reads a GGUF file, times whole forward passes.

Run by plans.py with whichever Python has torch, transformers, accelerate and gguf. The file's
numbers are written out in the number format asked for, as transformers does it; attention and KV
cache are its defaults. Logits of the last token are computed, as by `generate`.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch
import transformers
from serving import serve

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


class Peer:
    """One model, and a KV cache with a prompt."""

    def load(self, path: str, dtype: str, threads: int) -> dict[str, Any]:
        """Load a GGUF file, its numbers written out."""
        torch.set_num_threads(threads)
        folder, name = os.path.split(path)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=DTYPES[dtype]
        ).eval()
        return {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "attention": self.model.config._attn_implementation,
        }

    @torch.inference_mode()
    def fill(self, depth: int) -> dict[str, Any]:
        """Occupy `depth` positions, behind which `decode` reads."""
        self.cache = transformers.DynamicCache(config=self.model.config)
        tokens = torch.tensor([[2 + i % 200 for i in range(depth)]])
        self.model(tokens, past_key_values=self.cache, logits_to_keep=1)
        return {}

    @torch.inference_mode()
    def decode(self, tokens: list[int], depth: int) -> dict[str, Any]:
        """Read tokens one by one behind the first `depth`, which alone the cache keeps then."""
        assert self.cache.get_seq_length() == depth
        start = time.perf_counter()
        for token in tokens:
            self.model(torch.tensor([[token]]), past_key_values=self.cache)
        seconds = time.perf_counter() - start
        self.cache.crop(-len(tokens))
        return {"seconds": seconds}


if __name__ == "__main__":
    serve(Peer)
