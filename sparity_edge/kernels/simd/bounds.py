"""Bounds checks in compiled code, under the switch SPARITY_EDGE_CHECKS (see `kernels.checks`).

Loads and stores (`ir.load_from`, `ir.store_to`) call the function `place` by the name of its
symbol; it knows the operation that runs from a few words of state. They are one process's, so
chunks run one at a time under the switch. An address that is refused becomes that of a dummy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import cfunc, int64
from numba.core import cgutils, types

from sparity_edge.arrays import aligned_zeros
from sparity_edge.kernels.checks import (
    ADDRESS,
    CHECKED,
    FAULT,
    FIRST,
    FIRST_REGION,
    LIMIT,
    READ_END,
    REGION_WORDS,
    REGIONS,
    VALUE,
    WRITE_END,
)
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.simd.atomics import atomic_add, atomic_load, call0
from sparity_edge.kernels.simd.ir import (
    I64,
    PLACE_SYMBOL,
    define,
    load_from,
    store_to,
)

INDEX_SYMBOL = "sparity_edge_index"
_INDEX_TYPE = ir.FunctionType(I64, [I64] * 3)
# Words of the state: the table of the operation, the region that was found last, the region of the
# thread's scratch memory, the region of the argument block; then, a cache line each, the number of
# the next chunk that wants to run and of the one that may; then the dummy.
TABLE, FOUND, SCRATCH, BLOCK, NEXT, NOW, DUMMY = 0, 1, 2, 5, 8, 16, 24
_LARGEST = 64  # bytes of a load or store

_state = aligned_zeros(8 * DUMMY + _LARGEST).view(np.int64)
STATE = int(_state.ctypes.data)


@define(types.int64, types.int64)
def load_word(builder: Any, address: Any) -> Any:
    """The int64 at an address, unchecked: what the team and the checks themselves read."""
    return load_from(builder, address, I64, checked=False)


@define(types.none, types.int64, types.int64)
def store_word(builder: Any, address: Any, value: Any) -> Any:
    """Write an int64, unchecked."""
    store_to(builder, value, address, checked=False)


@define(types.int64, types.int64, types.int64, types.int64)
def outside(builder: Any, kind: Any, index: Any, bound: Any) -> Any:
    """Whether `index` is none of 0..bound-1, which is then noted; called `if CHECKED` alone.

    Args:
        kind: a key of `checks.INDICES`.
        index: what a kernel has read and would address memory with.
        bound: one more than the largest that is allowed.

    Returns:
        1 or 0; the kernel has to return on 1.
    """
    function = cgutils.get_or_insert_function(builder.module, _INDEX_TYPE, INDEX_SYMBOL)
    return builder.call(function, [kind, index, bound])


# --- around a chunk ---------------------------------------------------------------------------


@device
def begin_chunk(state: int, give_way: int) -> None:
    """Wait until no other chunk runs.

    Args:
        state: `STATE`, which cached machine code cannot know.
        give_way: the address of the system's call that lets another thread have the core.
    """
    number = atomic_add(state + 8 * NEXT, 1)
    while atomic_load(state + 8 * NOW) != number:
        call0(give_way)


@device
def allow(state: int, table: int, block: int, block_end: int, scratch: int, end: int) -> None:
    """Have the checks know the operation of the chunk that begins.

    Args:
        state: `STATE`.
        table: of the operation.
        block, block_end: where its argument block stands.
        scratch, end: scratch memory of the thread.
    """
    _put_region(state + 8 * BLOCK, block, block, block_end)
    _put_region(state + 8 * SCRATCH, scratch, end, end)
    store_word(state + 8 * FOUND, state + 8 * SCRATCH)
    store_word(state + 8 * TABLE, table)


@device
def _put_region(place: int, first: int, write_end: int, read_end: int) -> None:
    store_word(place + 8 * FIRST, first)
    store_word(place + 8 * WRITE_END, write_end)
    store_word(place + 8 * READ_END, read_end)


@device
def end_chunk(state: int, table: int) -> bool:
    """Let the next chunk run; returns whether a fault of the operation has been noted."""
    store_word(state + 8 * TABLE, 0)
    atomic_add(state + 8 * NOW, 1)
    return load_word(table + 8 * FAULT) != 0


# --- what kernels call ------------------------------------------------------------------------


@device
def _note(table: int, kind: int, value: int, limit: int) -> None:
    if load_word(table + 8 * FAULT) == 0:
        store_word(table + 8 * FAULT, kind)
        store_word(table + 8 * VALUE, value)
        store_word(table + 8 * LIMIT, limit)


@device
def _holds(region: int, address: int, nbytes: int, end: int) -> bool:
    return load_word(region) <= address and address <= load_word(region + 8 * end) - nbytes


def _place(address: int, nbytes: int, end: int) -> int:
    """The address, or that of the dummy where `nbytes` bytes there are not the operation's."""
    table = load_word(STATE + 8 * TABLE)
    if table == 0:  # no program runs: a kernel that was called by its address
        return address
    if _holds(STATE + 8 * SCRATCH, address, nbytes, end):
        return address
    if _holds(load_word(STATE + 8 * FOUND), address, nbytes, end):
        return address
    if _holds(STATE + 8 * BLOCK, address, nbytes, end):
        return address
    region = table + 8 * FIRST_REGION
    for _ in range(load_word(table + 8 * REGIONS)):
        if _holds(region, address, nbytes, end):
            store_word(STATE + 8 * FOUND, region)
            return address
        region += 8 * REGION_WORDS
    _note(table, ADDRESS, address, nbytes)
    return STATE + 8 * DUMMY


def _index(kind: int, index: int, bound: int) -> int:
    """Whether an index is none of 0..bound-1."""
    table = load_word(STATE + 8 * TABLE)
    if 0 <= index < bound or table == 0:
        return 0
    _note(table, kind, index, bound)
    return 1


_COMPILED = []  # alive as long as kernels may call them
if CHECKED:
    for _name, _function, _words in ((PLACE_SYMBOL, _place, 3), (INDEX_SYMBOL, _index, 3)):
        _COMPILED.append(cfunc(int64(*[int64] * _words), error_model="numpy")(_function))
        binding.add_symbol(_name, int(_COMPILED[-1].address))
