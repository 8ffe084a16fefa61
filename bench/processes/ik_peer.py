"""ik_llama.cpp in a process of its own: reads commands from a pipe, times llama_decode, answers.

Run by peers.py with the folder of a build. ik_llama.cpp has no bindings for Python, so its shared
library is called by way of ctypes, with structures read from the header of that build. Weights are
repacked while loading (-rtr 1 of its own programs). Commands are those of llama_peer.py that
decoding and prefill need.
"""

from __future__ import annotations

import ctypes
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from c_structs import structure
from serving import serve

LIBRARIES = ("libllama.so", "libllama.dylib", "llama.dll")
HEADERS = ("llama.h", "include/llama.h")
POINTER = ctypes.c_void_p


class Library:
    """The functions of one build, with the types that its header declares.

    Args:
        folder: of the build; the header lies there or in a folder around it.
    """

    def __init__(self, folder: Path) -> None:
        header = _first(base / name for base in (folder, *folder.parents) for name in HEADERS)
        text = header.read_text(encoding="utf-8")
        batch, model, context = (
            structure(text, f"llama_{name}") for name in ("batch", "model_params", "context_params")
        )
        self.whole = ctypes.CDLL(str(_first(p for name in LIBRARIES for p in folder.rglob(name))))
        number, tokens = ctypes.c_int32, ctypes.POINTER(ctypes.c_int32)
        self.declare("backend_init", None)
        self.declare("model_default_params", model)
        self.declare("context_default_params", context)
        self.declare("model_load_from_file", POINTER, ctypes.c_char_p, model)
        self.declare("init_from_model", POINTER, POINTER, context)
        self.declare("n_ctx", ctypes.c_uint32, POINTER)
        self.declare("n_vocab", number, POINTER)
        self.declare("batch_get_one", batch, tokens, number, number, number)
        self.declare("decode", number, POINTER, batch)
        self.declare("synchronize", None, POINTER)
        self.declare("kv_cache_clear", None, POINTER)
        self.declare("kv_cache_seq_rm", ctypes.c_bool, POINTER, number, number, number)
        self.declare("kv_cache_seq_pos_max", number, POINTER, number)
        self.declare("print_system_info", ctypes.c_char_p)
        self.declare("free", None, POINTER)
        self.declare("free_model", None, POINTER)
        self.declare("log_set", None, POINTER, POINTER)

    def declare(self, name: str, result: Any, *arguments: Any) -> None:
        """Make llama_`name` a method of this object, without the prefix."""
        function = getattr(self.whole, f"llama_{name}")
        function.restype, function.argtypes = result, arguments
        setattr(self, name, function)


class Fork:
    """One model and its context."""

    def __init__(self, folder: Path) -> None:
        self.lib: Any = Library(folder)
        self._quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, POINTER)(
            lambda *_: None
        )
        self.lib.log_set(ctypes.cast(self._quiet, POINTER), None)
        self.lib.backend_init()

    def load(
        self, path: str, threads: int, positions: int, batch: int, flash: bool = False
    ) -> dict[str, Any]:
        """Load a GGUF file and repack it, with a context of `positions`, prompts by `batch`."""
        parameters = self.lib.model_default_params()
        assert parameters.use_mmap, "the header is not that of this build"
        parameters.repack_tensors, parameters.use_mmap = True, False
        self.model = self.lib.model_load_from_file(path.encode(), parameters)
        assert self.model, f"ik_llama.cpp cannot load {path}"
        options = self.lib.context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = positions, batch, batch
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn = flash
        self.context = self.lib.init_from_model(self.model, options)
        assert self.context, f"ik_llama.cpp cannot make a context for {path}"
        assert self.lib.n_ctx(self.context) >= positions
        self.vocab = self.lib.n_vocab(self.model)
        return {
            "system": self.lib.print_system_info().decode(),
            "flash_attention": flash,
            "run_time_repacking": True,
        }

    def prefill(self, tokens: list[int]) -> dict[str, Any]:
        """Read tokens after a clear, in one batch; the last one's logits are computed."""
        self.lib.kv_cache_clear(self.context)
        return {"seconds": self._decode(tokens, 0)}

    def fill(self, depth: int, batch: int = 512) -> dict[str, Any]:
        """Occupy `depth` positions by reading as many tokens."""
        self.lib.kv_cache_clear(self.context)
        tokens = [2 + i % 200 for i in range(depth)]
        for start in range(0, depth, batch):
            self._decode(tokens[start : start + batch], start)
        return {}

    def decode(self, tokens: list[int], depth: int) -> dict[str, Any]:
        """Read tokens one by one from position `depth` on; the positions before are kept."""
        self.lib.kv_cache_seq_rm(self.context, 0, depth, -1)
        assert self.lib.kv_cache_seq_pos_max(self.context, 0) in (depth - 1, 0)
        start = time.perf_counter()
        for place, token in enumerate(tokens, depth):
            self._decode([token], place)
        return {"seconds": time.perf_counter() - start}

    def close(self) -> dict[str, Any]:
        """Free the model."""
        self.lib.free(self.context)
        self.lib.free_model(self.model)
        return {}

    def _decode(self, tokens: list[int], place: int) -> float:
        array = (ctypes.c_int32 * len(tokens))(*(token % self.vocab for token in tokens))
        start = time.perf_counter()
        batch = self.lib.batch_get_one(array, len(tokens), place, 0)
        result = self.lib.decode(self.context, batch)
        self.lib.synchronize(self.context)
        assert result == 0, f"llama_decode gives {result}"
        return time.perf_counter() - start


def _first(candidates: Any) -> Path:
    """The first file that is there."""
    found = next((path for path in candidates if path.is_file()), None)
    assert found, f"{sys.argv[1]} is no folder of a build of ik_llama.cpp with its llama.h"
    return Path(found)


if __name__ == "__main__":
    serve(partial(Fork, Path(sys.argv[1]).resolve()))
