"""Kernels that are given what would lead them outside of their memory: run under the switch.

Prints a JSON object: the name of each fault, and what was raised. `test_checks` runs it in a
process of its own, since the switch is read on import, and without it some of these would crash.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from builders import bundle_of, matrix_of, normal

from sparity_edge.arrays import aligned_zeros, rows
from sparity_edge.kernels.active_list import ActiveList, empty_list, full_list, set_channels
from sparity_edge.kernels.checks import BoundsError
from sparity_edge.kernels.kv_format import empty_rows
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.sparse_vector import SparseVector

SIZE, WIDTH, POSITIONS, HEAD_DIM = 96, 64, 8, 32
FLOATS = ("f32", 0, False)
Operations = Any


def integers(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def embed(token: int) -> Callable[[Operations], None]:
    def forward(ops: Operations) -> None:
        table = MACHINE.matrix(matrix_of(FLOATS, "output", (SIZE, WIDTH), 0))
        ops.embed(integers(0, token), table, rows(2, WIDTH))

    return forward


def listed(*wanted: int, count: int | None = None) -> ActiveList:
    active = empty_list(SIZE)
    set_channels(active, np.array(wanted, dtype=np.int32))
    if count is not None:
        active[:2].view(np.int64)[0] = count
    return active


def product(active: ActiveList) -> Callable[[Operations], None]:
    def forward(ops: Operations) -> None:
        matrix = MACHINE.matrix(matrix_of(FLOATS, "input", (WIDTH, SIZE), 0))
        ops.spvmm(normal(0, 1, SIZE), matrix, active, [rows(1, WIDTH)])

    return forward


def gather(active: ActiveList) -> Callable[[Operations], None]:
    def forward(ops: Operations) -> None:
        matrix = MACHINE.matrix(matrix_of(FLOATS, "output", (SIZE, WIDTH), 0))
        ops.vmmsp(normal(0, 1, WIDTH), matrix, active, rows(1, SIZE))

    return forward


def neurons(active: ActiveList) -> Callable[[Operations], None]:
    def forward(ops: Operations) -> None:
        bundle = MACHINE.bundle(bundle_of(FLOATS, FLOATS, SIZE, WIDTH, 0))
        ops.ffn(normal(0, 1, WIDTH), normal(1, 1, SIZE), bundle, active, rows(1, WIDTH))

    return forward


def cached() -> tuple[Any, Any]:
    made = [empty_rows("f32", (1, POSITIONS), HEAD_DIM) for _ in range(2)]
    for each in made:
        each[:] = 0
    return made[0], made[1]


def append(position: int) -> Callable[[Operations], None]:
    def forward(ops: Operations) -> None:
        x, table = normal(0, 1, HEAD_DIM), np.zeros((POSITIONS, HEAD_DIM), dtype=np.float32)
        ops.append(x, x, table, integers(position), *cached())

    return forward


def attention(tokens: int, position: int) -> Callable[[Operations], None]:
    def forward(ops: Operations) -> None:
        q = normal(0, tokens, HEAD_DIM)
        ops.attention(q, *cached(), integers(position), None, rows(tokens, HEAD_DIM))

    return forward


def rope(position: int) -> Callable[[Operations], None]:
    def forward(ops: Operations) -> None:
        x, table = normal(0, 1, HEAD_DIM), np.zeros((POSITIONS, HEAD_DIM), dtype=np.float32)
        ops.rope(x, table, integers(position), 1, x)

    return forward


def short_out(ops: Operations) -> None:
    """An array that is shorter than what is written to it."""
    out = aligned_zeros(4 * WIDTH).view(np.float32)[None, : WIDTH // 2]
    ops.rmsnorm(normal(0, 1, 8 * WIDTH), normal(1, 1, 8 * WIDTH)[0], 1e-5, out)


def short_weight(ops: Operations) -> None:
    x = normal(0, 1, 8 * WIDTH)
    ops.rmsnorm(x, normal(1, 1, WIDTH)[0], 1e-5, rows(1, 8 * WIDTH))


def lost_count(ops: Operations) -> None:
    """A count at an address where no operand stands."""
    vector = SparseVector(normal(0, 1, SIZE), None, integers(3))
    ops.tally([vector, vector], np.zeros(1, dtype=np.int64))


def faults() -> Iterator[tuple[str, Callable[[Operations], None]]]:
    for token in (SIZE, -1, 2**62):
        yield f"embed {token}", embed(token)
    for kind, of in (("spvmm", product), ("vmmsp", gather), ("ffn", neurons)):
        yield f"{kind} channel", of(listed(1, 5, SIZE))
        yield f"{kind} negative", of(listed(-5, 1))
        yield f"{kind} length", of(listed(1, 5, count=2**40))
        yield f"{kind} twice", of(listed(1, 5, 5))
        yield f"{kind} healthy", of(full_list(SIZE))
    for position in (POSITIONS, -1, 2**50):
        yield f"append {position}", append(position)
        yield f"attention of one {position}", attention(1, position)
        yield f"attention of many {position}", attention(3, position - 2)
        yield f"rope {position}", rope(position)
    yield "healthy", append(POSITIONS - 1)
    yield "short out", short_out
    yield "short weight", short_weight
    yield "short tallies", lost_count


MACHINE = ThreadedMachine(2)


def main() -> None:
    told = {}
    for name, forward in faults():
        try:
            MACHINE.prepare(forward)(False)
            told[name] = ""
        except BoundsError as error:
            told[name] = str(error)
    MACHINE.close()
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
