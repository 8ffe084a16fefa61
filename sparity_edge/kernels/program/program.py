"""Program: a model's operations, recorded once and then run by a team of threads.

A call of an operation appends a kernel and the addresses of its arrays to a table. Sizes and
addresses are fixed by the recording; contents (token ids, the position, activations) are read when
the program runs. Operations run in order, those recorded inside `together()` side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sparity_edge.arrays import (
    ROW_MULTIPLE,
    Floats,
    Integers,
    Numbers,
    aligned_empty,
    aligned_zeros,
    round_up,
)
from sparity_edge.kernels.decode import activations as _activations
from sparity_edge.kernels.decode import attention as _attention
from sparity_edge.kernels.decode import elementwise as _elementwise
from sparity_edge.kernels.decode import kquant_dots as _superblocks
from sparity_edge.kernels.decode import unpack as _unpack
from sparity_edge.kernels.decode import vmm as _vmm
from sparity_edge.kernels.decode.ffn import Bundle
from sparity_edge.kernels.kernel import Kernel, compile_kernels, let_compiler_rest
from sparity_edge.kernels.kv_format import GROUP, head_dim_of, number_bytes
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.operations import Operations
from sparity_edge.kernels.prefill import attention as _prefill
from sparity_edge.kernels.prefill import gemm as _gemm
from sparity_edge.kernels.program import team as _team
from sparity_edge.kernels.program.fusions import take_before_split, take_rotation
from sparity_edge.kernels.program.masked_records import KERNELS as _THIN
from sparity_edge.kernels.program.masked_records import ThinProgram
from sparity_edge.kernels.program.sparse_records import KERNELS as _SPARSE
from sparity_edge.kernels.program.sparse_records import every_channel
from sparity_edge.kernels.simd.float_tiles import PANEL, TOKENS
from sparity_edge.kernels.simd.int16_tiles import UNIT, X_UNIT, has_word_dot
from sparity_edge.kernels.sparse_vector import SparseVector
from sparity_edge.packed.bundle import PackedBundle
from sparity_edge.packed.layout import SUPERBLOCK, Layout, PackedMatrix
from sparity_edge.progress import Progress

# Weights in one chunk of a decoding matrix: small enough to share evenly, large enough that taking
# a chunk (0.1 us) is nothing.
CHUNK_BYTES = 1 << 16
LEAST_CHUNKS = 8


class ThreadedMachine:
    """A `Machine` of compiled kernels on a team of threads.

    Args:
        threads: how many work on an operation, at least 1.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._team = _team.Team(threads)
        self._orientations: set[str] = set()
        self._products: dict[Kernel, None] = {}

    def matrix(self, packed: PackedMatrix) -> Matrix:
        """The words that kernels read about the matrix."""
        self._orientations.add(packed.layout.orientation)
        if packed.layout.orientation == "output":
            self._products[_vmm.kernel_of(packed.layout)] = None
        self._products.update(dict.fromkeys(_kernels_of_prompts(packed.layout)))
        return Matrix(packed)

    def bundle(self, packed: PackedBundle) -> Bundle:
        """The words that kernels read about the bundle."""
        self._orientations.add("input")
        for layout in (packed.layout.up, packed.layout.down):
            self._products.update(dict.fromkeys(_kernels_of_prompts(layout)))
        return Bundle(packed)

    def prepare(
        self, forward: Callable[[Operations], None], decoding: bool = False
    ) -> Callable[[bool], None]:
        """Record `forward` once."""
        program = Program(self.threads, decoding)
        forward(program)
        self._team.compile()
        let_compiler_rest()
        return lambda may_take_long: self._team.run(program, patient=may_take_long)

    def compile(self, progress: Progress) -> None:
        """Compile the kernels that the matrices seen so far need."""
        wanted = [*_COMMON, *self._products]
        if "input" in self._orientations:  # what is stored by input channels can be skipped
            wanted += [*_SPARSE, *_THIN]
        self._team.compile()
        compile_kernels(wanted, progress)

    def close(self) -> None:
        """Send the threads home."""
        self._team.close()


_COMMON = (
    _activations.split_activations,
    _activations.rmsnorm_split,
    _activations.silu_mul_split,
    _activations.attention_combine_split,
    _unpack.embed,
    _elementwise.rmsnorm,
    _elementwise.rope,
    _elementwise.append,
    _elementwise.silu_mul,
    _prefill.attention_prefill,
    _attention.attention_decode,
    _attention.attention_combine,
)


def _by_words(layout: Layout) -> bool:
    """Whether prompts multiply a matrix as integers."""
    return layout.quantized and has_word_dot()


def _kernels_of_prompts(layout: Layout) -> tuple[Kernel, Kernel]:
    if _by_words(layout):
        return _gemm.pack_words, _gemm.gemm_words
    return _gemm.pack_floats, _gemm.gemm_floats


class Program(ThinProgram):
    """Recorded `Operations` (see there for what each one does); give it to `Team.run`.

    Args:
        threads: of the team that will run it; sets the amount of scratch memory.
        decoding: every row is a token of a sequence of its own.
    """

    def __init__(self, threads: int, decoding: bool = False) -> None:
        super().__init__()
        self._threads = threads
        self._decoding = decoding
        self._records: list[list[int]] = []
        self._kept: list[Any] = []  # whatever the recorded addresses point into
        self._addresses: dict[int, int] = {}  # of arrays that are kept, by their identity
        self._together = self._first = False
        self._after = []
        self._scratch_bytes = 8192
        self._digits: dict[tuple[int, int | str, int], tuple[Any, ...]] = {}
        self._packed: dict[tuple[bool, int, int], Any] = {}
        self._parts: dict[int, Any] = {}
        self._header: Integers | None = None
        self._counters = np.zeros(0, dtype=np.int64)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Operations recorded inside do not wait for each other."""
        self._together = self._first = True
        yield
        self._together = False
        self._record_after()

    def start(self) -> Integers:
        """Set the counters back and give the header words; called by the team before a run."""
        if self._header is None:
            self._header = self._assemble()
        self._counters[:] = 0
        return self._header

    def embed(self, ids: Integers, table: Matrix, out: Floats) -> None:
        """Rows `ids` of an output-major table."""
        self._record(_unpack.embed, len(out), table, ids, out, out.strides[0], writes=out)

    def rmsnorm(self, x: Floats, weight: Floats, epsilon: float, out: Floats) -> None:
        """x / sqrt(mean(x**2) + epsilon) * weight for every row; the weight is padded."""
        tokens, size = x.shape
        self._record(
            _elementwise.rmsnorm,
            tokens,
            x,
            x.strides[0],
            weight,
            out,
            out.strides[0],
            size,
            epsilon,
            writes=out,
        )

    def linear(
        self,
        x: Floats | SparseVector,
        matrix: Matrix,
        out: Floats,
        bias: Floats | None = None,
        accumulate: bool = False,
    ) -> None:
        """out = x W^T (+ bias) (+ out)."""
        if isinstance(x, SparseVector):
            self._sparse_linear(x, matrix, out, bias, accumulate)
        elif len(x) == 1:
            self._vmm(x, matrix, out, bias, accumulate)
        elif self._decoding:
            self._vmm_each(x, matrix, out, bias, accumulate)
        else:
            self._gemm(x, matrix, out, bias, accumulate)

    def rope(self, x: Floats, table: Floats, position: Integers, heads: int, out: Floats) -> None:
        """Rotate the heads of every row by its position."""
        tokens, size = x.shape
        self._record(
            _elementwise.rope, tokens, x, x.strides[0], table, position, heads, size // heads,
            out, out.strides[0], 0, writes=out,
        )  # fmt: skip

    def append(
        self,
        keys: Floats,
        values: Floats,
        table: Floats,
        position: Integers,
        cached_keys: Numbers,
        cached_values: Numbers,
    ) -> None:
        """Write rotated keys and values into the rows of the cache (heads, capacity)."""
        heads, head_dim = len(cached_keys), head_dim_of(cached_keys)
        self._need_scratch(4 * round_up(head_dim, GROUP))
        head_stride, token_stride = cached_keys.strides[:2]
        self._record(
            _elementwise.append, len(keys), keys, keys.strides[0], table, position, heads, head_dim,
            cached_keys, token_stride, head_stride, values, values.strides[0], cached_values,
            number_bytes(cached_keys),
        )  # fmt: skip

    def attention(
        self,
        q: Floats,
        cached_keys: Numbers,
        cached_values: Numbers,
        position: Integers,
        window: int | None,
        out: Floats,
    ) -> None:
        """Softmax(q K^T / sqrt(head_dim)) V over the positions each row of q may see."""
        tokens, size = q.shape
        kv_heads, capacity = cached_keys.shape[:2]
        head_dim, number = head_dim_of(cached_keys), number_bytes(cached_keys)
        heads = size // head_dim
        if tokens > 1:
            share, wide = heads // kv_heads, round_up(head_dim, 32)
            step = _prefill.step_of(share)
            self._need_scratch(_prefill.scratch_bytes(share, tokens, wide))
            self._record(
                _prefill.attention_prefill, kv_heads * -(-tokens // step),
                q, q.strides[0], cached_keys, cached_values, cached_keys.strides[0], position,
                window or 0, kv_heads, share, head_dim, out, out.strides[0],
                tokens, step, wide, head_dim**-0.5, number, writes=out,
            )  # fmt: skip
            return
        blocks = -(-min(capacity, window or capacity) // _attention.BLOCK)
        part_bytes = 4 * round_up(head_dim, 16) + 64
        parts = self._parts_of(heads * blocks * part_bytes)
        arguments = (
            q, q.strides[0], cached_keys, cached_values, cached_keys.strides[0], position,
            window or 0, heads, heads // kv_heads, head_dim, out, out.strides[0],
            blocks, parts, part_bytes, head_dim**-0.5, number,
            *take_rotation(self._records, self._word(q), self._word(cached_keys)),
        )  # fmt: skip
        self._need_scratch(_attention.scratch_bytes(heads // kv_heads, head_dim))
        self._record(_attention.attention_decode, kv_heads * blocks, *arguments)
        self._afterwards(
            lambda: self._record(_attention.attention_combine, heads, *arguments, writes=out)
        )

    def _parts_of(self, nbytes: int) -> Any:
        """Memory for partial results: all layers share it, queries side by side do not."""
        place = len(self._after)
        if place not in self._parts or self._parts[place].nbytes < nbytes:
            self._parts[place] = aligned_empty(nbytes)
        return self._parts[place]

    def silu_mul(self, gate: Floats, up: Floats, out: Floats) -> None:
        """silu(gate) * up."""
        tokens, width = gate.shape
        blocks = -(-width // _elementwise.BLOCK)
        self._record(
            _elementwise.silu_mul, tokens * blocks, gate, gate.strides[0], up, up.strides[0],
            out, out.strides[0], width, blocks, writes=out,
        )  # fmt: skip

    def _vmm(
        self, x: Floats, matrix: Matrix, out: Floats, bias: Floats | None, accumulate: bool
    ) -> None:
        layout = matrix.layout
        if layout.orientation == "input":
            self.spvmm(x, matrix, every_channel(layout.shape[1]), [out], [bias], accumulate)
            return
        digits = self._split(x, layout) if layout.quantized else ()
        chunks, step = self._vmm_steps(layout)
        streams = (matrix.data_address, step * layout.row_bytes)
        self._record(
            _vmm.kernel_of(layout),
            chunks,
            matrix,
            x,
            bias,
            out,
            accumulate,
            step,
            _vmm.lead_of(layout),
            *digits,
            writes=out,
            streams=streams,
        )

    def _vmm_steps(self, layout: Layout) -> tuple[int, int]:
        """Chunks of a product, and rows of a chunk."""
        outputs = layout.shape[0]
        step = max(1, min(CHUNK_BYTES // layout.row_bytes, -(-outputs // LEAST_CHUNKS)))
        return -(-outputs // step), step

    def _gemm(
        self, x: Floats, matrix: Matrix, out: Floats, bias: Floats | None, accumulate: bool
    ) -> None:
        layout = matrix.layout
        words, input_major = _by_words(layout), layout.orientation == "input"
        depth = round_up(layout.shape[1], layout.group or 1) if input_major else layout.padded
        tiles, tile_bytes = self._pack(x, words)
        rows = 0 if words or input_major else 4 * PANEL * depth
        panels = self._panels_of_chunk(layout.shape[0]) if words else 1
        sums = panels * _gemm.SUMS * -(-len(x) // TOKENS)
        self._need_scratch(_gemm.SMALL_SCRATCH + _gemm.PANEL_BYTES + sums + rows)
        self._record(
            _gemm.gemm_words if words else _gemm.gemm_floats,
            -(-layout.shape[0] // (PANEL * panels)),
            matrix, tiles, tile_bytes, len(x), bias, out, out.strides[0], accumulate,
            depth // UNIT if words else depth, input_major, panels, writes=out,
        )  # fmt: skip

    def _panels_of_chunk(self, outputs: int) -> int:
        """How many panels share activations in L2; fewer where threads would wait for each other.

        No sum depends on it.
        """
        return min(_gemm.MOST_PANELS, max(1, outputs // (4 * PANEL * self._threads)))

    def _pack(self, x: Floats, words: bool) -> tuple[Any, ...]:
        """Activations by tiles, and the bytes of a tile; packed unless they are at hand."""
        key = (self._word(x), "words" if words else "floats", len(x))
        if key not in self._digits:
            size, tiles = round_up(x.shape[1], ROW_MULTIPLE), -(-len(x) // TOKENS)
            tile_bytes = 4 * TOKENS * size
            if words:
                tile_bytes = round_up(size // UNIT, _gemm.WORD_BLOCK) * X_UNIT
            memory = (words, size, len(x))
            if memory not in self._packed:
                self._packed[memory] = aligned_zeros(tiles * tile_bytes)
            packed = self._packed[memory]
            # The memory serves all activations of this shape: what it held before is gone.
            self._digits = {
                key: value for key, value in self._digits.items() if value[0] is not packed
            }
            self._first = True  # it waits for x, and what follows waits for it
            self._record(
                _gemm.pack_words if words else _gemm.pack_floats, tiles,
                x, x.strides[0], len(x), packed, tile_bytes, size,
            )  # fmt: skip
            self._first = True
            self._digits[key] = (packed, tile_bytes)
        return self._digits[key]

    def _split(self, x: Floats, layout: Layout) -> tuple[Any, ...]:
        """Digits, scales and sums of a row of activations, computed unless they are at hand."""
        order = _activations.ORDERS.get(layout.dtype, _activations.IN_A_ROW)
        key = (self._word(x), order, layout.padded)
        if key not in self._digits:
            places = self._new_digits(layout)
            kernel, chunks, before = take_before_split(self._records, self._word(x), layout.padded)
            self._first = True  # it waits for x, and what follows waits for it
            self._record(kernel, chunks, x, layout.padded, order, *places, *before)
            self._first = True
            self._digits[key] = places
        return self._digits[key]

    def _new_digits(self, layout: Layout, tokens: int = 1) -> tuple[Any, ...]:
        """Memory for digits, scales and sums, a row for each token."""
        groups = layout.padded // 32
        digits = aligned_zeros(tokens * 128 * -(-groups // 2)).reshape(tokens, -1)
        scales, sums = np.zeros((2, tokens, round_up(groups, 16)), dtype=np.float32)
        if layout.superblocks:
            floats = _superblocks.X_FLOATS // 4 * -(-layout.padded // (2 * SUPERBLOCK))
            scales = np.zeros((tokens, floats), dtype=np.float32)
        return digits, scales, sums

    def _need_scratch(self, nbytes: int) -> None:
        self._scratch_bytes = max(self._scratch_bytes, round_up(nbytes, 64))

    def _record(
        self,
        kernel: Kernel,
        chunks: int,
        *arguments: Any,
        writes: Floats | None = None,
        streams: tuple[int, int] = (0, 0),
    ) -> None:
        if writes is not None:  # digits of what stood there before are no longer right
            gone = self._word(writes)
            self._digits = {key: value for key, value in self._digits.items() if key[0] != gone}
        words = [self._word(argument) for argument in arguments]
        waits = self._first or not self._together
        self._first = False
        record = [kernel.address, chunks, int(waits), *streams, 0, *words]
        assert len(record) <= _team.RECORD_WORDS
        self._records.append(record + [0] * (_team.RECORD_WORDS - len(record)))
        self._header = None

    def _word(self, argument: Any) -> int:
        """The int64 word that stands for an argument: an address, a number or a float's bits."""
        if argument is None:
            return 0
        if isinstance(argument, Matrix):
            self._kept.append(argument)
            return argument.address
        if isinstance(argument, np.ndarray):
            known = self._addresses.get(id(argument))
            if known is None:  # asking NumPy takes 0.8 us, and a batch has 10,000 arguments
                known = self._addresses[id(argument)] = int(argument.ctypes.data)
                self._kept.append(argument)
            return known
        if isinstance(argument, float):
            return int(np.float32(argument).view(np.int32))
        return int(argument)

    def _assemble(self) -> Integers:
        records = np.array(self._records, dtype=np.int64).reshape(-1, _team.RECORD_WORDS)
        # From each operation, the next that streams through weights (or none: the end).
        ahead = len(records)
        for index in reversed(range(len(records))):
            ahead = index if records[index, _team.WEIGHTS] else ahead
            records[index, _team.NEXT] = ahead
        counters = aligned_empty(_team.LINE * (1 + self._threads) * len(records)).view(np.int64)
        scratch = aligned_zeros(self._threads * self._scratch_bytes)
        header = np.zeros(_team.HEADER_WORDS, dtype=np.int64)
        header[_team.RECORDS] = records.ctypes.data
        header[_team.OPERATIONS] = len(records)
        header[_team.COUNTERS] = counters.ctypes.data
        header[_team.THREADS] = self._threads
        header[_team.SCRATCH] = scratch.ctypes.data
        header[_team.SCRATCH_STRIDE] = self._scratch_bytes
        self._counters = counters
        self._kept += [records, scratch]
        return header
