"""Fusions: operations of one token that a later one takes over, so that threads meet less often.

A layer has nine meetings instead of fourteen. `Program` asks here while it records; what has been
taken over is off the record.
"""

from __future__ import annotations

from sparity_edge.kernels.decode import activations as _activations
from sparity_edge.kernels.decode import attention as _attention
from sparity_edge.kernels.decode import elementwise as _elementwise
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.program.team import CHUNKS, FIRST_ARGUMENT, FUNCTION, WAITS

Record = list[int]


def _word(record: Record, offset: int) -> int:
    """The argument that a kernel finds `offset` bytes from the first."""
    return record[FIRST_ARGUMENT + offset // 8]


def take_rotation(records: list[Record], q: int, cached_keys: int) -> tuple[int, int, int]:
    """Take `rope` of the queries at q and `append` to the cache, if they were the last to come.

    Returns:
        The words TABLE, NEW_KEYS and NEW_VALUES of `attention_decode`.
    """
    if len(records) < 2:
        return 0, 0, 0
    rope, append = records[-2:]
    if (
        (rope[FUNCTION], append[FUNCTION])
        == (_elementwise.rope.address, _elementwise.append.address)
        and _word(rope, _elementwise.HEADS_IN) == _word(rope, _elementwise.HEADS_OUT) == q
        and _word(append, _elementwise.HEADS_OUT) == cached_keys
        and rope[WAITS]
    ):
        del records[-2:]
        words = (_elementwise.TABLE, _elementwise.HEADS_IN, _elementwise.VALUES)
        table, keys, values = (_word(append, word) for word in words)
        return table, keys, values
    return 0, 0, 0


def take_before_split(
    records: list[Record], x: int, size: int
) -> tuple[Kernel, int, tuple[int, ...]]:
    """Take the operation that has just computed the row at x, `size` numbers when filled up.

    Returns:
        A kernel that does both, its chunks, and the arguments that follow those of the split.
    """
    chunks = -(-size // _activations.BLOCK)
    if records and records[-1][WAITS]:
        last = records[-1]
        for first, both, chunks_of_both in (
            (_elementwise.rmsnorm, _activations.rmsnorm_split, _of_rmsnorm(last, x) * chunks),
            (_elementwise.silu_mul, _activations.silu_mul_split, _of_silu_mul(last, x) * chunks),
            (
                _attention.attention_combine,
                _activations.attention_combine_split,
                _of_combine(last, x, size) * last[CHUNKS],
            ),
        ):
            if last[FUNCTION] == first.address and chunks_of_both:
                records.pop()
                return (
                    both,
                    chunks_of_both,
                    tuple(last[FIRST_ARGUMENT:][: _activations.MOST_BEFORE]),
                )
    return _activations.split_activations, chunks, ()


def _of_rmsnorm(record: Record, x: int) -> bool:
    """Whether it has one row, x, and does not write where other chunks read."""
    source = _word(record, _elementwise.X)
    return record[CHUNKS] == 1 and _word(record, _elementwise.OUT) == x != source


def _of_silu_mul(record: Record, x: int) -> bool:
    """Whether it has one row, x."""
    one_row = record[CHUNKS] == _word(record, _elementwise.BLOCKS)
    return one_row and _word(record, _elementwise.PRODUCT) == x


def _of_combine(record: Record, x: int, size: int) -> bool:
    """Whether its heads are whole groups of x and all there is of it."""
    head_dim = _word(record, _attention.HEAD_DIM)
    fits = head_dim % 32 == 0 and record[CHUNKS] * head_dim == size
    return fits and _word(record, _attention.OUT) == x
