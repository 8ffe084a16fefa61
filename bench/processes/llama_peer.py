"""llama.cpp in a process of its own: reads commands from a pipe, times llama_decode, answers.

Run by peers.py with whichever Python has llama-cpp-python; needs nothing of the package. A command
{"do": "prefill", ...} gives {"seconds": ...}; what llama.cpp prints goes to stderr.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import llama_cpp
import numpy as np
from llama_state import repeated_state
from serving import serve

SEED_TOKENS = 256  # read to get a state that can be repeated


class Peer:
    """One model and its context."""

    def __init__(self) -> None:
        self.model: Any = None
        self.context: Any = None
        llama_cpp.llama_backend_init()
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))

    def load(self, path: str, threads: int, positions: int, batch: int) -> dict[str, Any]:
        """Load a GGUF file, with a context of `positions` and prompts in batches of `batch`."""
        parameters = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        assert self.model, f"llama.cpp cannot load {path}"
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = positions, batch, batch
        options.n_threads = options.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        assert self.context, f"llama.cpp cannot make a context for {path}"
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        return {
            "version": llama_cpp.__version__,
            "system": llama_cpp.llama_print_system_info().decode(),
            "flash_attention": "auto",
        }

    def clear(self) -> dict[str, Any]:
        """Forget all tokens."""
        llama_cpp.llama_memory_clear(self.memory, False)
        return {}

    def prefill(self, tokens: list[int]) -> dict[str, Any]:
        """Read tokens after a clear, in one batch; the last one's logits are computed."""
        self.clear()
        return {"seconds": self._decode(tokens)}

    def decode(self, tokens: list[int], depth: int) -> dict[str, Any]:
        """Read tokens one by one from position `depth` on; the positions before are kept."""
        llama_cpp.llama_memory_seq_rm(self.memory, 0, depth, -1)
        assert llama_cpp.llama_memory_seq_pos_max(self.memory, 0) == depth - 1
        start = time.perf_counter()
        for token in tokens:
            self._decode([token])
        return {"seconds": time.perf_counter() - start}

    def logits(self, tokens: list[int], batch: int, out: str) -> dict[str, Any]:
        """Read tokens after a clear, `batch` at a time; float32 logits of each go into `out`."""
        self.clear()
        with open(out, "wb") as file:  # noqa: PTH123 - a path is a string here all the way
            for start in range(0, len(tokens), batch):
                part = tokens[start : start + batch]
                self._decode_all(part, start)
                pointer = llama_cpp.llama_get_logits(self.context)
                np.ctypeslib.as_array(pointer, (len(part), self.vocab)).tofile(file)
        return {"shape": [len(tokens), self.vocab]}

    def quantize(self, source: str, out: str, kind: str, threads: int) -> dict[str, Any]:
        """Write a GGUF file anew in another number format, such as Q4_K_M or F32."""
        options = llama_cpp.llama_model_quantize_default_params()
        prefix = "LLAMA_FTYPE_ALL_" if kind == "F32" else "LLAMA_FTYPE_MOSTLY_"
        options.ftype = getattr(llama_cpp, prefix + kind)
        options.nthread, options.allow_requantize = threads, True
        failed = llama_cpp.llama_model_quantize(
            source.encode(), out.encode(), ctypes.byref(options)
        )
        assert not failed, f"llama.cpp cannot make {kind} of {source}"
        return {}

    def fill(self, depth: int) -> dict[str, Any]:
        """Occupy `depth` positions: read the first ones, then repeat their keys and values."""
        self.clear()
        if depth == 0:
            return {}
        seed = min(SEED_TOKENS, depth)
        self._decode([2 + i % 200 for i in range(seed)])
        if depth > seed:
            state = self._state()
            longer = repeated_state(state, depth)
            self.clear()
            buffer = (ctypes.c_uint8 * len(longer)).from_buffer_copy(longer)
            read = llama_cpp.llama_state_seq_set_data(self.context, buffer, len(longer), 0)
            assert read == len(longer), "llama.cpp does not take the repeated state"
        assert llama_cpp.llama_memory_seq_pos_max(self.memory, 0) == depth - 1
        return {}

    def close(self) -> dict[str, Any]:
        """Free the model."""
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)
        return {}

    def _decode(self, tokens: list[int]) -> float:
        array = (llama_cpp.llama_token * len(tokens))(*(token % self.vocab for token in tokens))
        start = time.perf_counter()
        result = llama_cpp.llama_decode(
            self.context, llama_cpp.llama_batch_get_one(array, len(tokens))
        )
        llama_cpp.llama_synchronize(self.context)
        assert result == 0, f"llama_decode gives {result}"
        return time.perf_counter() - start

    def _decode_all(self, tokens: list[int], position: int) -> None:
        """Read tokens from a position on, with the logits of every one."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, position + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        result = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_synchronize(self.context)
        llama_cpp.llama_batch_free(batch)
        assert result == 0, f"llama_decode gives {result}"

    def _state(self) -> bytes:
        size = llama_cpp.llama_state_seq_get_size(self.context, 0)
        buffer = (ctypes.c_uint8 * size)()
        written = llama_cpp.llama_state_seq_get_data(self.context, buffer, size, 0)
        assert written == size
        return bytes(buffer)


if __name__ == "__main__":
    serve(Peer)
