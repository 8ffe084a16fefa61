"""Phases of a recorded token: what runs between two barriers, the bytes it reads, and its time.

A phase is named after its kernels and the matrices they read. A clock is read at every barrier by
an operation of its own that goes side by side with the phase, so a token with clocks has as many
barriers as one without. Bytes are those of weights and of the KV cache: active rows, the headers
of groups that have one, and whole matrices of everything dense.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from shared.cases import Bench
from shared.prepared import Kept

from sparity_edge.arrays import aligned_zeros
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.kv_format import row_bytes
from sparity_edge.kernels.program.loops import WAITS
from sparity_edge.kernels.program.program import Program
from sparity_edge.kernels.program.recorder import Record, Recorder
from sparity_edge.kernels.simd.atomics import call3
from sparity_edge.kernels.simd.memory import load_i64
from sparity_edge.kernels.words import Words

STAMP = Words("clock kind place")
MONOTONIC = 1  # of clock_gettime, on Linux
SPEC_BYTES = 16  # seconds and nanoseconds


@Kernel(STAMP)
def stamp(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Write the time to PLACE."""
    kind, place = load_i64(arguments + STAMP.kind), load_i64(arguments + STAMP.place)
    call3(load_i64(arguments + STAMP.clock), kind, place, 0)


class Noting(Recorder):
    """A recorder that remembers the arguments of every record."""

    def __init__(self, threads: int) -> None:
        self.noted: list[Mapping[str, Any]] = []
        super().__init__(threads)

    def record(self, kernel: Any, chunks: int, **arguments: Any) -> None:
        super().record(kernel, chunks, **arguments)
        del self.noted[len(self.records) - 1 :]  # of records that a fusion took away
        self.noted.append(arguments)


@dataclass
class Phase:
    """What runs between two barriers."""

    kernels: list[str] = field(default_factory=list)
    reads: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Kernels, each once, and the sides of what they read."""
        return " + ".join(dict.fromkeys(self.kernels))

    def nbytes(self, positions: int) -> int:
        """Bytes of weights and KV cache that it reads, by the lists as they are now.

        Args:
            positions: of the KV cache that are read.
        """
        return sum(_bytes_read(each, positions) for each in self.reads)


def _bytes_read(arguments: Mapping[str, Any], positions: int) -> int:
    if "keys" in arguments:  # attention: every key and value of every head
        heads = len(arguments["keys"])
        return 2 * positions * heads * row_bytes(arguments["keys"])
    bundle, matrix = arguments.get("bundle"), arguments.get("matrix")
    if bundle is not None:
        return Bench.active_bytes(bundle.layout, arguments["active"])
    if matrix is None:
        return 0
    if arguments.get("active") is not None:
        return Bench.active_bytes(matrix.layout, arguments["active"])
    return int(matrix.layout.nbytes)


class Phases:
    """A model's decoding programs, recorded by phases; the latest is `program`."""

    def __init__(self, model: Any) -> None:
        self.program = Noting(model.threads)
        self._threads, self._team = model.threads, model.machine.team
        model.machine.prepare = self._prepare
        model._passes.clear()  # what was recorded before

    def _prepare(self, forward: Callable[[Any], None], decoding: bool = False) -> Kept:
        self.program = program = Noting(self._threads)
        forward(Program(program, decoding))
        return Kept(lambda patient: self._team.run(program, patient=patient))

    def phases(self) -> list[Phase]:
        """The phases of the latest program."""
        found: list[Phase] = []
        for record, arguments in zip(self.program.records, self.program.noted, strict=True):
            if record.waits or not found:
                found.append(Phase())
            name = record.kernel.name
            for key in ("bundle", "matrix"):
                if arguments.get(key) is not None:
                    layout = arguments[key].layout
                    name += " {} x {}".format(*getattr(layout, "up", layout).shape)
                    break
            found[-1].kernels.append(name)
            if name.partition(" ")[0] not in ("attention_combine", "attention_combine_split"):
                found[-1].reads.append(arguments)
        return found

    def stamped(self) -> Stamped:
        """A copy of the latest program that reads the clock at every barrier."""
        return Stamped(self.program)


class Stamped(Recorder):
    """A program that reads the clock at every barrier."""

    def __init__(self, program: Recorder) -> None:
        super().__init__(program.threads)
        self.scratch_bytes, self.operands = program.scratch_bytes, program.operands
        waits = 1 + sum(record.waits for record in program.records)
        self._times = aligned_zeros(SPEC_BYTES * (waits + 1)).view(np.int64).reshape(-1, 2)
        self.kept = [program, self._times]
        for index, record in enumerate(program.records):
            row = list(record.row)
            if record.waits or index == 0:
                self._stamp()
                row[WAITS] = 0  # as the stamp has waited
            self.records.append(Record(record.kernel, row))
        self._stamp()

    def _stamp(self) -> None:
        place = self._times.ctypes.data + SPEC_BYTES * len(
            [each for each in self.records if each.kernel is stamp]
        )
        self.record(stamp, 1, clock=_clock(), kind=MONOTONIC, place=int(place))

    def microseconds(self) -> list[float]:
        """Of each phase in the latest run."""
        count = len([each for each in self.records if each.kernel is stamp])
        times = self._times[:count] @ np.array([1e6, 1e-3])
        return [float(each) for each in np.diff(times)]


def _clock() -> int:
    """The address of the C library's clock_gettime."""
    function = ctypes.CDLL(None).clock_gettime
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
