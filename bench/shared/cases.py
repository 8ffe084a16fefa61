"""Kernels as benchmark cases: matrices carved out of one pool, each case a function that runs.

A case is one matrix many times over in a pool that no cache holds, so weights come from memory as
they do when a token is decoded. Lists of active channels are random, of an exact density.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparity_edge.arrays import Floats, rows
from sparity_edge.errors import FormatError
from sparity_edge.kernels.active_list import (
    ActiveList,
    channels,
    empty_list,
    full_list,
    set_channels,
)
from sparity_edge.kernels.operations import Operations
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.measure.ceiling import Memory
from sparity_edge.measure.rounds import timed
from sparity_edge.packed.bundle import BundleLayout, PackedBundle
from sparity_edge.packed.layout import ORIENTATIONS, SUPERBLOCK, Layout, PackedMatrix

FORMATS = {
    "f32": ("f32", 0, False),
    "bf16": ("bf16", 0, False),
    "int8": ("int8", 32, False),
    "int4": ("int4", 32, False),
    "int4+min": ("int4", 32, True),
    "int5": ("int5", 32, False),
    "int5+min": ("int5", 32, True),
    "int4k": ("int4k", 32, True),
    "int5k": ("int5k", 32, True),
    "int6k": ("int6k", 16, False),
    "iq4": ("iq4", 32, False),
    "iq4k": ("iq4k", 32, False),
    "int3k": ("int3k", 16, False),
    "int2k": ("int2k", 16, True),
}
READ_BYTES = 192 << 20  # of weights that one run reads: 4 to 6 ms, six third-level caches
TOKENS = 512  # of a prefill
Run = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """Something to run, and what one run of it has to read."""

    run: Callable[[], object]
    layers: int  # how often the matrix is there
    nbytes: int  # of the weights of one layer, for the channels that are active
    row_bytes: int = 0  # of a run of neighbouring bytes, where a list decides

    def seconds(self) -> float:
        """For one layer."""
        return timed(self.run) / self.layers


def layout_of(name: str, orientation: str, sides: tuple[int, int]) -> Layout:
    """The layout of a matrix (outputs, inputs) in one of FORMATS."""
    dtype, group, minimum = FORMATS[name]
    return Layout(dtype, orientation, sides, group, minimum)


def layouts_of(name: str, sides: tuple[int, int]) -> dict[str, Layout]:
    """The layouts that a format of FORMATS has for a matrix, by orientation."""
    found = {}
    for orientation in ORIENTATIONS:
        with contextlib.suppress(FormatError):
            found[orientation] = layout_of(name, orientation, sides)
    return found


def run_bytes(layout: Layout | BundleLayout) -> int:
    """Bytes that an active channel or neuron reads; input-major rows may end with an idle line."""
    if isinstance(layout, BundleLayout):
        return layout.up.row_bytes + layout.down.number_bytes
    return layout.row_bytes if layout.orientation == "output" else layout.number_bytes


def random_list(size: int, density: float, seed: int = 0) -> ActiveList:
    """An exact share of the channels below `size`."""
    if density >= 1:
        return full_list(size)
    active = empty_list(size)
    count = max(1, round(density * size))
    set_channels(active, np.sort(np.random.default_rng(seed).choice(size, count, replace=False)))
    return active


def normal(size: int) -> Floats:
    """Activations of one token."""
    x = rows(1, size)
    x[:] = np.random.default_rng(1).standard_normal((1, size))
    return x


class Bench:
    """The pool, and the machine that multiplies with what is in it."""

    def __init__(self, threads: int, read_bytes: int = READ_BYTES) -> None:
        self.machine = ThreadedMachine(threads)
        self.read_bytes = read_bytes
        self.memory = Memory(threads)
        # Bytes 1 to 59: as float16 scales, bfloat16 and float32 they are all small normal numbers.
        random = np.random.default_rng(0)
        self.memory.pool[:] = random.integers(1, 60, self.memory.pool.size, dtype=np.uint8)
        for orientation in ORIENTATIONS:
            self.matrix(Layout("f32", orientation, (1, 1)))
        self.machine.compile(lambda *_: None)
        self._next = 0

    def close(self) -> None:
        """Send the threads home."""
        self.machine.close()
        self.memory.close()

    def fitting(self, layout: Layout) -> Layout:
        """The layout, with fewer outputs where it would take more than half the pool."""
        if layout.nbytes <= self.memory.nbytes // 2:
            return layout
        outputs = layout.shape[0] * (self.memory.nbytes // 2) // layout.nbytes // 512 * 512
        fewer = (outputs, layout.shape[1])
        return Layout(layout.dtype, layout.orientation, fewer, layout.group, layout.minimum)

    def dense(self, *layouts: Layout) -> Case:
        """A matrix, or several in turn, times one token."""
        count = self._count(sum(layout.nbytes for layout in layouts), 1.0)
        plan = [
            (normal(layout.shape[1]), self.matrix(layout), rows(1, layout.shape[0]))
            for _ in range(count)
            for layout in layouts
        ]
        inputs = {layout.shape[1]: normal(layout.shape[1]) for layout in layouts}

        def forward(ops: Operations) -> None:
            for x, matrix, out in plan:
                ops.linear(inputs[x.shape[1]], matrix, out)

        return self._case(forward, count, sum(layout.nbytes for layout in layouts))

    def outputs(self, layout: Layout, density: float) -> Case:
        """The active outputs of an output-major matrix."""
        outputs, inputs = layout.shape
        active, x, out = random_list(outputs, density), normal(inputs), rows(1, outputs)
        count = self._count(layout.nbytes, density)
        matrices = [self.matrix(layout) for _ in range(count)]

        def forward(ops: Any) -> None:
            for matrix in matrices:
                ops.vmmsp(x, matrix, active, out)

        nbytes = len(channels(active)) * layout.row_bytes
        return self._case(forward, count, nbytes, layout.row_bytes)

    def inputs(self, layout: Layout, density: float) -> Case:
        """An input-major matrix times the active inputs."""
        outputs, inputs = layout.shape
        active, x, out = random_list(inputs, density), normal(inputs), rows(1, outputs)
        count = self._count(layout.nbytes, density)
        matrices = [self.matrix(layout) for _ in range(count)]

        def forward(ops: Any) -> None:
            for matrix in matrices:
                ops.spvmm(x, matrix, active, [out])

        return self._case(forward, count, self.active_bytes(layout, active), run_bytes(layout))

    def ffn(self, layout: BundleLayout, density: float) -> Case:
        """Up rows and down columns of the active neurons; the gate is not in it."""
        neurons, hidden = layout.up.shape
        active, x, out = random_list(neurons, density), normal(hidden), rows(1, hidden)
        gate = normal(neurons)
        count = self._count(layout.nbytes, density)
        bundles = [self.bundle(layout) for _ in range(count)]

        def forward(ops: Any) -> None:
            for bundle in bundles:
                ops.ffn(x, gate, bundle, active, out)

        return self._case(forward, count, self.active_bytes(layout, active), run_bytes(layout))

    def select(self, rule: str, size: int, density: float, times: int = 64) -> Case:
        """The list of one vector."""
        x, active, wanted = normal(size), empty_list(size), max(1, round(density * size))
        thresholds = rows(1, size)[0]
        thresholds[:] = np.sort(np.abs(x[0]))[size - wanted] * (1 - 1e-6)
        count = np.array([wanted], dtype=np.int64)

        def forward(ops: Any) -> None:
            for _ in range(times):
                if rule == "threshold":
                    ops.select_threshold(x, thresholds, active)
                elif rule == "top":
                    ops.select_top(x, count, active)
                else:
                    ops.select_n_of_m(x, max(1, round(16 * density)), 16, active)

        return self._case(forward, times, 0)

    def prefill(self, layout: Layout) -> Case:
        """A matrix times TOKENS tokens; instead of bytes, the number of operations."""
        outputs, inputs = layout.shape
        x, out = rows(TOKENS, inputs), rows(TOKENS, outputs)
        x[:] = np.random.default_rng(1).standard_normal((TOKENS, inputs))
        matrix = self.matrix(layout)
        return self._case(lambda ops: ops.linear(x, matrix, out), 1, 2 * TOKENS * outputs * inputs)

    def _case(
        self, forward: Callable[[Any], None], layers: int, nbytes: int, row_bytes: int = 0
    ) -> Case:
        run = self.machine.prepare(forward)
        return Case(lambda: run(False), layers, nbytes, row_bytes)

    def _count(self, nbytes: int, density: float) -> int:
        return max(1, round(self.read_bytes / (nbytes * density)))

    def _carve(self, nbytes: int) -> Any:
        """The next bytes of the pool, from the beginning again where it ends."""
        if self._next + nbytes > self.memory.nbytes:
            self._next = 0
        start, self._next = self._next, self._next + nbytes
        return self.memory.pool[start : start + nbytes]

    def matrix(self, layout: Layout) -> Any:
        """A matrix out of the pool."""
        return self.machine.matrix(PackedMatrix(layout, self._carve(layout.nbytes)))

    def bundle(self, layout: BundleLayout) -> Any:
        """A bundle out of the pool."""
        return self.machine.bundle(PackedBundle(layout, self._carve(layout.nbytes)))

    @staticmethod
    def active_bytes(layout: Layout | BundleLayout, active: ActiveList) -> int:
        """Rows of active channels, and the headers and factors of the groups that hold one."""
        wanted = channels(active)
        nbytes = len(wanted) * run_bytes(layout)
        columns = layout.down if isinstance(layout, BundleLayout) else layout
        if columns.orientation == "output":  # its rows have their scales with them
            return nbytes
        if layout.group:
            nbytes += len(np.unique(wanted // layout.group)) * layout.header_bytes
        return nbytes + len(np.unique(wanted // SUPERBLOCK)) * columns.factor_bytes

    _next = 0


def blas(outputs: int, inputs: int) -> Case:
    """The product of a prefill in float32 by NumPy."""
    x = np.ones((TOKENS, inputs), dtype=np.float32)
    weights = np.ones((inputs, outputs), dtype=np.float32)
    out = np.empty((TOKENS, outputs), dtype=np.float32)
    return Case(lambda: np.matmul(x, weights, out=out), 1, 2 * TOKENS * outputs * inputs)
