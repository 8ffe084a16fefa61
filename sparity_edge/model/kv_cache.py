"""KVCache: the keys and values of the tokens read so far, and which tokens they were.

Every turn passes all of its token ids; the KV cache keeps the longest prefix it already holds, so
that clearing, editing and regenerating need no protocol of their own. Room grows by a quarter, one
layer after another: old and new room never stand side by side. It knows nothing of where keys and
values come from; `kv_cache_file` writes it to disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sparity_edge.arrays import Numbers, round_up
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import ContextError
from sparity_edge.kernels.kv_format import empty_rows, head_dim_of, row_bytes
from sparity_edge.model.prefixes.parts import usable
from sparity_edge.model.rotary import EACH_ITS_OWN, PLAIN
from sparity_edge.packed.folder import PackedFolder, PackedModel
from sparity_edge.packed.layout import Layout

FIRST_CAPACITY = 512  # positions
# Room is in memory whether it is used or not (huge pages), so it is made in small steps; each costs
# a copy and another recording of the decoding program, some milliseconds.
STEP = 256
# Tokens worth taking over from another KV cache.
LEAST_SHARED = 32


class KVCache:
    """Keys and values of one sequence.

    Args:
        config: gives layers, heads and head_dim.
        max_context: the most positions it will ever hold.
        dtype: "f32", "bf16" for half the memory, or "int8" for little more than a quarter.
    """

    def __init__(self, config: ModelConfig, max_context: int, dtype: str = "f32") -> None:
        self.max_context = max_context
        self.model_context = config.model_context
        self.dtype = dtype
        self.vocab_size = config.vocab_size
        self.ids: list[int] = []
        # Of the first so many positions the values are those that any prompt gets which begins so:
        # read in chunks, and nothing skipped (`prefixes.parts`).
        self.as_prompt = 0
        self.stretch = PLAIN  # of the rotary tables that keys were rotated with
        shape = (config.num_key_value_heads, min(FIRST_CAPACITY, max_context))
        layers = range(config.num_hidden_layers)
        # Of each layer (kv_heads, capacity) rows, see `kernels.kv_format`.
        self.keys: list[Numbers] = [empty_rows(dtype, shape, config.head_dim) for _ in layers]
        self.values: list[Numbers] = [empty_rows(dtype, shape, config.head_dim) for _ in layers]

    def __len__(self) -> int:
        """Positions in use."""
        return len(self.ids)

    @property
    def capacity(self) -> int:
        """Positions there is room for; when it changes, so do the arrays of `layer`."""
        return int(self.keys[0].shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, room included."""
        return sum(each.nbytes for each in (*self.keys, *self.values))

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values that one position takes."""
        return sum(len(each) * row_bytes(each) for each in (*self.keys, *self.values))

    def touch(self) -> None:
        """Have the memory of an empty one at hand: a system gives it out when it is first written,
        which costs the prompt that does so some milliseconds."""
        for rows in (*self.keys, *self.values):
            rows.view(np.uint8)[...] = 0

    def layer(self, index: int) -> tuple[Numbers, Numbers]:
        """Keys and values of one layer, each (kv_heads, capacity) rows of `kernels.kv_format`."""
        return self.keys[index], self.values[index]

    def reuse(self, ids: Sequence[int]) -> int:
        """Keep the longest common prefix with `ids` and forget the rest.

        Returns:
            How many of `ids` need not be read again: at most all but the last one, whose logits
            are wanted.
        """
        shared = self.common(ids)
        self.trim(shared)
        return shared

    def common(self, ids: Sequence[int]) -> int:
        """The length of the longest common prefix with `ids`, at most all but the last one."""
        most = min(len(self.ids), len(ids) - 1)
        return next((i for i in range(most) if self.ids[i] != ids[i]), most)

    def shareable(self, ids: Sequence[int]) -> int:
        """How much of a prompt another KV cache may take over, so that no bit of it changes."""
        return usable(min(self.common(ids), self.as_prompt), len(ids))

    def copy(self, other: KVCache, length: int) -> None:
        """Hold what the first `length` positions of another KV cache like this one hold."""
        self.trim(0)
        self.reserve(length)
        self.stretch = other.stretch
        pairs = zip((*self.keys, *self.values), (*other.keys, *other.values), strict=True)
        for mine, theirs in pairs:
            mine[:, :length] = theirs[:, :length]
        self.ids[:] = other.ids[:length]
        self.as_prompt = min(length, other.as_prompt)

    def shape_of(self, positions: int) -> tuple[int, int, int, int]:
        """The shape that the bytes of so many positions have: (layers, heads, positions, row)."""
        rows = self.keys[0]
        return len(self.keys), len(rows), positions, row_bytes(rows)

    def rows(self, first: int, end: int) -> tuple[Numbers, Numbers]:
        """Keys and values of positions from `first` to `end` as bytes, see `shape_of`; copies."""
        shape = self.shape_of(end - first)
        copies = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        for layers, copied in zip((self.keys, self.values), copies, strict=True):
            for rows, own in zip(layers, copied, strict=True):
                own[...] = rows[:, first:end].view(np.uint8).reshape(own.shape)
        return copies

    def put(self, first: int, keys: Numbers, values: Numbers) -> None:
        """Write bytes, as `rows` gives them, from position `first` on, where there is room."""
        for layers, content in ((self.keys, keys), (self.values, values)):
            for rows, own in zip(layers, content, strict=True):
                solid = np.ascontiguousarray(own)
                where = rows[:, first : first + own.shape[1]]
                where[...] = solid.view(rows.dtype).reshape(where.shape)

    def set_stretch(self, wanted: int) -> list[int]:
        """Take keys of another stretch from now on; what has to be read again is forgotten.

        Returns:
            The ids of those tokens.
        """
        again = [] if wanted in (self.stretch, EACH_ITS_OWN) else list(self.ids)
        self.trim(len(self.ids) - len(again))
        self.stretch = wanted
        return again

    def append(self, ids: Sequence[int], *, as_prompt: bool) -> None:
        """Count positions that were written.

        Args:
            ids: of their tokens.
            as_prompt: whether they were read as a prompt in chunks, nothing skipped.
        """
        if as_prompt and self.as_prompt == len(self.ids):
            self.as_prompt += len(ids)
        self.ids.extend(map(int, ids))

    def trim(self, length: int) -> None:
        """Forget all positions from `length` on."""
        del self.ids[length:]
        self.as_prompt = min(self.as_prompt, length)

    def how_to_fit(self, length: int, what: str) -> str:
        """What to do about `what` of `length` positions, more than there may be.

        A larger context is no advice where the model itself could not follow it.
        """
        if length > self.model_context:
            return f"shorten the {what}, the model reads {self.model_context} tokens at most"
        return f"shorten the {what} or raise the context with --max-context"

    def reserve(self, length: int) -> None:
        """Make room for `length` positions in all.

        Raises:
            ContextError: that is more than `max_context`.
        """
        if length > self.max_context:
            raise ContextError(
                f"{length} tokens do not fit into a context of {self.max_context}; "
                f"{self.how_to_fit(length, 'text')}."
            )
        if length <= self.capacity:
            return
        wanted = round_up(max(length, self.capacity * 5 // 4), STEP)
        for rows in (self.keys, self.values):
            for layer in range(len(rows)):
                rows[layer] = self._grown(rows[layer], min(wanted, self.max_context))

    def _grown(self, rows: Numbers, capacity: int) -> Numbers:
        grown = empty_rows(self.dtype, (len(rows), capacity), head_dim_of(rows))
        grown[:, : len(self.ids)] = rows[:, : len(self.ids)]
        return grown


def longest_shared(caches: Iterable[KVCache], ids: Sequence[int]) -> tuple[KVCache, int] | None:
    """The first of the KV caches that share the longest prefix with `ids`, and its length.

    Only what is as it would be if it were read with `ids` is shared.

    Args:
        caches: to choose from.
        ids: of a prompt; the last one is never shared, for its logits are wanted.

    Returns:
        None: none shares as many as are worth taking over.
    """
    found = [(cache, cache.shareable(ids)) for cache in caches]
    best = max(found, key=lambda each: each[1], default=None)
    return best if best is not None and best[1] >= LEAST_SHARED else None


def bytes_of_a_position(config: ModelConfig, dtype: str) -> int:
    """Bytes of keys and values that one position takes, of a KV cache that is not made."""
    row = row_bytes(empty_rows(dtype, (1, 1), config.head_dim))
    return 2 * config.num_hidden_layers * config.num_key_value_heads * row


def default_kv_dtype(packed: PackedFolder | PackedModel) -> str:
    """The number format of keys and values: exact where the weights are, else half the bytes."""
    matrices = [each for each in packed.layouts.values() if isinstance(each, Layout)]
    return "f32" if all(each.dtype == "f32" for each in matrices) else "bf16"
