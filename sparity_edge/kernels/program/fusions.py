"""Operator fusion: an operation of one token that a later one takes over, for fewer barriers.

A layer has nine barriers instead of fourteen. Record functions ask here; what has been taken over
is off the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.kernels.decode import activations, attention, elementwise
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.program.recorder import Record

NOT_TAKEN = dict.fromkeys(["table", "new_keys", "new_values", "q_norm", "k_norm", "epsilon"], 0)


def take_rotation(records: list[Record], q: int, cached_keys: int) -> Mapping[str, int]:
    """Take `rope` of the queries at q and `append` to the cache, if they were the last to come.

    Returns:
        The words of `attention_decode` that those of other kernels of attention have not.
    """
    if len(records) < 2:
        return NOT_TAKEN
    rope, append = records[-2:]
    if (rope.kernel, append.kernel) != (elementwise.rope, elementwise.append) or not rope.waits:
        return NOT_TAKEN
    of_rope, of_append = rope.arguments, append.arguments
    if not of_rope["x"] == of_rope["out"] == q or of_append["out"] != cached_keys:
        return NOT_TAKEN
    if any(of_rope[word] != of_append[word] for word in ("table", "epsilon")):
        return NOT_TAKEN
    del records[-2:]
    return {
        "table": of_append["table"],
        "new_keys": of_append["x"],
        "new_values": of_append["values"],
        "q_norm": of_rope["norm"],
        "k_norm": of_append["norm"],
        "epsilon": of_append["epsilon"],
    }


def take_before_split(
    records: list[Record], x: int, size: int
) -> tuple[Kernel, int, Mapping[str, Any]]:
    """Take the operation that has just computed the row at x, `size` numbers when filled up.

    Returns:
        A kernel that does both, its chunks, and the argument block `before` if it has one.
    """
    chunks = -(-size // activations.BLOCK)
    last = records[-1] if records and records[-1].waits else None
    if last is None:
        return activations.split_activations, chunks, {}
    if _of_rmsnorm(last, x):
        both = activations.rmsnorm_split
    elif _of_silu_mul(last, x):
        both = activations.silu_mul_split
    elif _of_combine(last, x, size):
        both, chunks = activations.attention_combine_split, last.chunks
    else:
        return activations.split_activations, chunks, {}
    records.pop()
    return both, chunks, {"before": last.arguments}


def _of_rmsnorm(record: Record, x: int) -> bool:
    """Whether it is `rmsnorm` of one row, x, and does not write where other chunks read."""
    words = record.arguments
    one_row = record.kernel is elementwise.rmsnorm and record.chunks == 1
    return one_row and words["out"] == x != words["x"]


def _of_silu_mul(record: Record, x: int) -> bool:
    """Whether it is `silu_mul` of one row, x."""
    words = record.arguments
    return (
        record.kernel is elementwise.silu_mul
        and record.chunks == words["blocks"]
        and words["out"] == x
    )


def _of_combine(record: Record, x: int, size: int) -> bool:
    """Whether it is `attention_combine` of heads that are whole groups of x and all of it."""
    words = record.arguments
    if record.kernel is not attention.attention_combine or words["out"] != x:
        return False
    head_dim = words["head_dim"]
    return head_dim % 32 == 0 and record.chunks * head_dim == size
