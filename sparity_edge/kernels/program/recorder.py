"""Recorder: a table of kernels and the addresses of their arguments, ready for the thread loops.

Record functions append to it; it knows which operations have to wait for others, keeps whatever
recorded addresses point into, and lends memory that operations share. It knows nothing of what any
kernel computes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from sparity_edge.arrays import Floats, Integers, Numbers, aligned_empty, aligned_zeros, round_up
from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.program import loops
from sparity_edge.kernels.program.operands import Operands
from sparity_edge.kernels.simd.bounds import STATE
from sparity_edge.kernels.sparse.ffn import Bundle
from sparity_edge.kernels.words import Words

LEAST_SCRATCH = 8192  # bytes for each thread
NO_STREAM = (0, 0)
Form = tuple[int, Hashable, int]  # of activations: their address, what form it is, its size


class Record(NamedTuple):
    """One operation of a program."""

    kernel: Kernel
    row: list[int]  # as the team reads it

    @property
    def chunks(self) -> int:
        """How many chunks it has."""
        return self.row[loops.CHUNKS]

    @property
    def waits(self) -> bool:
        """Whether it waits for all operations before it: a barrier."""
        return self.row[loops.WAITS] != 0

    @property
    def arguments(self) -> dict[str, int]:
        """Its argument block, by name."""
        words = self.row[loops.FIRST_ARGUMENT :]
        return dict(zip(self.kernel.words.names, words, strict=False))  # zeros fill up the row


class Recorder:
    """Records of one program; give it to `Team.run`.

    Args:
        threads: of the team that will run it; sets the amount of scratch memory.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.records: list[Record] = []
        # Forms of activations that have been computed (digits, packed tiles), and where they stand.
        self.forms: dict[Form, tuple[Any, ...]] = {}
        self.scratch_bytes = LEAST_SCRATCH  # of each thread
        self.kept: list[Any] = []  # whatever the recorded addresses point into
        self._addresses: dict[int, int] = {}  # of arrays that are kept, by their identity
        self._pools: dict[Hashable, Any] = {}
        self._together = self._barrier = False
        self._after: list[Callable[[], None]] = []  # what waits for operations side by side
        self._header: Integers | None = None
        self._counters = np.zeros(0, dtype=np.int64)
        self._table = np.zeros((0, loops.RECORD_WORDS), dtype=np.int64)
        self.operands = Operands() if CHECKED else None  # what kernels are checked against

    # --- order --------------------------------------------------------------------------------

    @contextmanager
    def together(self) -> Iterator[None]:
        """Operations recorded inside do not wait for each other."""
        self._together = self._barrier = True
        yield
        self._together = False
        self._record_after()

    @contextmanager
    def alongside(self) -> Iterator[None]:
        """As `together`, inside of which it may stand: one operation in several pieces."""
        inside, self._together = self._together, True
        self._barrier |= not inside
        yield
        self._together = inside
        self._barrier |= not inside

    def barrier(self) -> None:
        """Have the next operation wait for all before it, even inside `together`."""
        self._barrier = True

    def afterwards(self, record: Callable[[], None]) -> None:
        """Record what has to wait: one barrier for all operations that go side by side."""
        self._after.append(record)
        if not self._together:
            self._record_after()

    @property
    def side_by_side(self) -> int:
        """How many operations that something waits for have been recorded side by side so far."""
        return len(self._after)

    def _record_after(self) -> None:
        self._barrier = bool(self._after)
        inside, self._together = self._together, True
        for record in self._after:
            record()
        self._after, self._together = [], inside
        self._barrier = True

    # --- memory -------------------------------------------------------------------------------

    def need_scratch(self, nbytes: int) -> None:
        """Have at least so many bytes of scratch memory for each thread."""
        self.scratch_bytes = max(self.scratch_bytes, round_up(nbytes, 64))

    def pool(self, key: Hashable, nbytes: int, zeroed: bool = False) -> Any:
        """Memory for whoever comes with this key; later users find what earlier ones left there.

        Operations that wait for each other share it, so that it stays in cache: 0.5 MB for each of
        32 layers would come from memory every time.
        """
        known = self._pools.get(key)
        if known is None or known.nbytes < nbytes:
            known = aligned_zeros(nbytes) if zeroed else aligned_empty(nbytes)
            self._pools[key] = known
        return known

    # --- records ------------------------------------------------------------------------------

    def record(
        self,
        kernel: Kernel,
        chunks: int,
        *,
        writes: Floats | None = None,
        stream: tuple[int, int] = NO_STREAM,
        **arguments: Any,
    ) -> None:
        """Append one operation.

        Args:
            kernel: what each chunk calls.
            chunks: how many there are.
            writes: the activations that change, whose forms are then no longer right.
            stream: where the weights stand that its chunks run through, and bytes of a chunk.
            arguments: a value for each word of the kernel's argument block: an array, matrix or
                bundle (its address), a number, or None (0); of an inner block a mapping.

        Raises:
            TypeError: a word has no value, or a value no word.
        """
        if writes is not None:
            gone = self.word(writes)
            self.forms = {form: place for form, place in self.forms.items() if form[0] != gone}
        # A prompt's recording has 5,000 arguments, and most are numbers: no call for those.
        words = [
            each if type(each) is int else self.word(each)
            for each in _ordered(kernel, kernel.words, arguments)
        ]
        waits = self._barrier or not self._together
        self._barrier = False
        row = [kernel.address, chunks, int(waits), *stream, 0, *words]
        assert len(row) <= loops.RECORD_WORDS
        row.extend([0] * (loops.RECORD_WORDS - len(row)))
        self.records.append(Record(kernel, row))
        self._header = None

    def table(self, kernel: Kernel, tokens: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The argument blocks of several tokens as a table, for a kernel that takes one.

        Args:
            kernel: declares the words of a row.
            tokens: rows.
            arguments: as for `record`; arrays of two dimensions give each token a row of their own.

        Returns:
            The words `table`, `tokens` and `table_stride`.

        Raises:
            TypeError: as for `record`.
        """
        assert kernel.table is not None
        values = _ordered(kernel, kernel.table, arguments)
        steps = [each.strides[0] if getattr(each, "ndim", 0) == 2 else 0 for each in values]
        start = np.array([self.word(each) for each in values], dtype=np.int64)
        table = start + np.array(steps, dtype=np.int64) * np.arange(tokens)[:, None]
        if self.operands is not None:
            self.operands.follow(int(table.ctypes.data), start.tolist())
        return {"table": table, "tokens": tokens, "table_stride": table.strides[0]}

    def pointing(self, to: Sequence[Integers]) -> Integers:
        """The addresses of some arrays as an array, for kernels that find their operands there."""
        table = np.array([each.ctypes.data for each in to], dtype=np.int64)
        self.kept += to
        if self.operands is not None:
            for each in to:
                self.operands.note(each)
            self.operands.follow(int(table.ctypes.data), table.tolist())
        return table

    def word(self, argument: Any) -> int:
        """The int64 word that stands for an argument: an address, a number or a float's bits."""
        if argument is None or argument is False:
            return 0
        if isinstance(argument, np.ndarray):
            known = self._addresses.get(id(argument))
            if known is None:  # asking NumPy takes 0.8 us, and a batch has 10,000 arguments
                known = self._addresses[id(argument)] = int(argument.ctypes.data)
                self.kept.append(argument)
                if self.operands is not None:
                    self.operands.note(argument)
            return known
        if isinstance(argument, Matrix | Bundle):
            self.kept.append(argument)
            if self.operands is not None:
                self.operands.note(argument)
            return argument.address
        if isinstance(argument, float):
            return int(np.float32(argument).view(np.int32))
        return int(argument)

    # --- the program --------------------------------------------------------------------------

    def assembled(self) -> Integers:
        """The words of all operations, (operations, RECORD_WORDS), as a run reads them."""
        self.start()
        return self._table

    def finish(self, arrays: Sequence[Numbers]) -> None:
        """Let go of what recording took, some megabytes of a batch; nothing is recorded any more.

        Args:
            arrays: that operations name but whoever runs the program keeps.
        """
        self.assembled()
        gone = {id(each) for each in arrays}
        self.kept = [each for each in self.kept if id(each) not in gone]
        self.records.clear()
        self._addresses.clear()

    def start(self) -> Integers:
        """Set the counters back and give the header words; called by the team before a run."""
        if self._header is None:
            self._header = self._assemble()
        self._counters[:] = 0
        return self._header

    def check(self) -> None:
        """Raise what checked kernels have found in a run; the team calls it under the switch.

        Raises:
            BoundsError: an operation was about to touch memory that is not its own.
        """
        if self.operands is not None:
            self.operands.raise_fault()

    def _assemble(self) -> Integers:
        rows = [record.row for record in self.records]
        records = np.array(rows, dtype=np.int64).reshape(-1, loops.RECORD_WORDS)
        # From each operation, the next that streams through weights (or none: the end).
        ahead = len(records)
        for index in reversed(range(len(records))):
            ahead = index if records[index, loops.WEIGHTS] else ahead
            records[index, loops.NEXT] = ahead
        counters = aligned_empty(loops.LINE * (1 + self.threads) * len(records)).view(np.int64)
        scratch = aligned_zeros(self.threads * self.scratch_bytes)
        header = np.zeros(loops.HEADER_WORDS, dtype=np.int64)
        header[loops.RECORDS] = records.ctypes.data
        header[loops.OPERATIONS] = len(records)
        header[loops.COUNTERS] = counters.ctypes.data
        header[loops.THREADS] = self.threads
        header[loops.SCRATCH] = scratch.ctypes.data
        header[loops.SCRATCH_STRIDE] = self.scratch_bytes
        if self.operands is not None:
            tables = self.operands.tables([(each.kernel, each.arguments) for each in self.records])
            header[loops.TABLES], header[loops.TABLE_STRIDE] = tables.ctypes.data, tables.strides[0]
            header[loops.STATE] = STATE
        self._counters, self._table = counters, records
        self.kept += [records, scratch]
        return header


def _ordered(kernel: Kernel, declared: Words, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    try:
        return declared.ordered(arguments)
    except TypeError as error:
        raise TypeError(f"{kernel.name}: {error}") from None
