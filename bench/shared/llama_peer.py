"""llama.cpp in a process of its own: reads commands from a pipe, times llama_decode, answers.

Run by peers.py with whichever Python has llama-cpp-python; needs nothing of this project. One JSON
object a line: {"do": "prefill", ...} gives {"seconds": ...}. Several models may be loaded, told
apart by "name". What llama.cpp prints goes to stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import time
from collections import defaultdict
from typing import Any

import llama_cpp
import numpy as np

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


def repeated_state(state: bytes, length: int) -> bytes:
    """The state of a sequence, lengthened by repeating its keys and values.

    Reading 8192 tokens of an 8B model would take minutes. The layout is that of llama.cpp's
    llama_kv_cache::state_write in 2026 with keys and values by rows (flash attention): a magic
    number, the sequence, streams, cells, then for each cell its position and sequences, then the
    rows of keys of each layer, then those of values. Anything else stops the program.
    """
    place = 0

    def take(kind: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{kind}", state, place)
        place += struct.calcsize(f"<{kind}")
        return int(value)

    magic, sequence, streams, cells = (take("I") for _ in range(4))
    assert (sequence, streams) == (0, 1), "one sequence in one stream is what this can repeat"
    result = [struct.pack("<IIII", magic, sequence, streams, length)]
    sequences = set()
    for cell in range(cells):
        assert take("i") == cell, "positions are not consecutive"
        sequences.add(tuple(take("i") for _ in range(take("I"))))
    (of_each,) = sequences
    tail = struct.pack(f"<I{len(of_each)}i", len(of_each), *of_each)
    result += [struct.pack("<i", position) + tail for position in range(length)]
    transposed, layers = take("I"), take("I")
    assert not transposed, "values are stored by columns; flash attention is off"
    result.append(struct.pack("<II", transposed, layers))
    for _ in range(2 * layers):
        kind, row = take("i"), take("Q")
        data = np.frombuffer(state, np.uint8, cells * row, place).reshape(cells, row)
        place += cells * row
        result += [struct.pack("<iQ", kind, row), np.resize(data, (length, row)).tobytes()]
    assert place == len(state), f"{len(state) - place} bytes are left"
    return b"".join(result)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # llama.cpp itself prints to stdout
    peers: dict[str, Peer] = defaultdict(Peer)
    for line in sys.stdin:
        command = json.loads(line)
        peer = peers[command.pop("name", "")]
        result = getattr(peer, command.pop("do"))(**command)
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
