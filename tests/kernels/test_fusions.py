"""Operations that are recorded as one: fewer records, and what they give one by one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from builders import normal, packed

from sparity_edge.arrays import Floats, padded, rows
from sparity_edge.kernels.operations import HeadNorm, Operations
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.program.program import Program
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.progress import silent


@pytest.fixture(scope="module", params=[1, 2, 5])
def machine(request: pytest.FixtureRequest) -> Iterator[ThreadedMachine]:
    machine = ThreadedMachine(request.param)
    machine.matrix(packed(Layout("f32", "output", (1, 1))))
    machine.compile(silent)
    yield machine
    machine.close()


class Block:
    """The operations of a decoder layer, 640 to 1100 numbers wide."""

    def __init__(self, dtype: str, head_dim: int, kv_heads: int = 2, share: int = 3) -> None:
        self.heads, self.kv_heads, self.head_dim = kv_heads * share, kv_heads, head_dim
        self.dtype, wide = dtype, head_dim * self.heads
        self.matrices = [
            self._matrix(sides, seed)
            for seed, sides in enumerate(
                [(wide, 640), (kv_heads * head_dim, 640), (640, wide), (1100, 640), (640, 1100)]
            )
        ]
        self.norm = padded(normal(9, 1, 640, 1e-3)[0])  # scores have to stay small
        # Heads of 64 numbers go without.
        weight = padded(normal(7, 1, head_dim)[0])
        self.head_norm = None if head_dim == 64 else HeadNorm(weight, 1e-5)
        self.table = np.ascontiguousarray(normal(8, 700, head_dim))

    def _matrix(self, sides: tuple[int, int], seed: int) -> PackedMatrix:
        return packed(Layout(self.dtype, "output", sides, 32, self.dtype == "int4"), seed)

    def run(
        self, machine: ThreadedMachine | ReferenceMachine, position: int, apart: bool
    ) -> Floats:
        """The residual stream after one token; `apart` puts an operation between any two."""
        q, kv, o, up, down = (machine.matrix(each) for each in self.matrices)
        x, h, middle = normal(1, 1, 640), rows(1, 640), rows(1, 1100)
        queries, mixed = (rows(1, self.heads * self.head_dim) for _ in range(2))
        keys, values = (rows(1, self.kv_heads * self.head_dim) for _ in range(2))
        gate, place = rows(1, 1100), np.array([position], dtype=np.int64)
        random = np.random.default_rng(3)
        cached = random.standard_normal((2, self.kv_heads, 700, self.head_dim), dtype=np.float32)
        other = rows(1, 16)

        def forward(ops: Operations) -> None:
            def between() -> None:
                if apart:
                    ops.silu_mul(other, other, other)

            ops.rmsnorm(x, self.norm, 1e-5, h)
            between()
            with ops.together():
                ops.linear(h, q, queries)
                ops.linear(h, kv, keys)
                ops.linear(h, kv, values)
            ops.rope(queries, self.table, place, self.heads, queries, self.head_norm)
            ops.append(keys, values, self.table, place, cached[0], cached[1], self.head_norm)
            between()
            ops.attention(queries, cached[0], cached[1], place, None, mixed)
            between()
            ops.linear(mixed, o, x, None, True)
            ops.rmsnorm(x, self.norm, 1e-5, h)
            between()
            with ops.together():
                ops.linear(h, up, gate)
                ops.linear(h, up, middle)
            ops.silu_mul(gate, middle, gate)
            between()
            ops.linear(gate, down, x, None, True)

        machine.prepare(forward)(False)
        self.operations = 0
        if isinstance(machine, ThreadedMachine):
            recorder = Recorder(machine.threads)
            forward(Program(recorder))
            self.operations = len(recorder.records)
        return np.concatenate([x.ravel(), cached.ravel()])


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("head_dim", [64, 32, 40])
@pytest.mark.parametrize("position", [0, 255, 256, 600])
def test_fused_gives_what_the_operations_give(
    machine: ThreadedMachine, dtype: str, head_dim: int, position: int
) -> None:
    block = Block(dtype, head_dim)
    fused = block.run(machine, position, False)
    operations = block.operations
    alone = block.run(machine, position, True)
    # Five stand between; six were taken over, or five where heads are no whole groups.
    assert block.operations - operations == 5 + (6 if head_dim % 32 == 0 else 5)
    np.testing.assert_array_equal(fused, alone)
    reference = block.run(ReferenceMachine(), position, False)
    assert np.abs(fused - reference).max() <= 1e-3 * np.abs(reference).max()
