"""The saved state of a llama.cpp sequence, lengthened: a long context without reading it.

Knows the layout of that state and nothing of how it is got; a neighbour of llama_peer.py.
"""

from __future__ import annotations

import struct

import numpy as np


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
