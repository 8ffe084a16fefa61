"""Cache: the keys and values of the tokens read so far, and which tokens they were.

Every turn passes all of its token ids; the cache keeps the longest prefix it already holds, so that
clearing, editing and regenerating need no protocol of their own. Room grows by doubling. The cache
knows nothing of where keys and values come from; `cache_file` writes it to disk.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparity_edge.config import ModelConfig
from sparity_edge.errors import ContextError
from sparity_edge.kernels.buffers import Numbers
from sparity_edge.kernels.cached import empty_rows

FIRST_CAPACITY = 512  # positions


class Cache:
    """Keys and values of one sequence.

    Args:
        config: gives layers, heads and head_dim.
        max_context: the most positions it will ever hold.
        dtype: "f32", "bf16" for half the memory, or "int8" for little more than a quarter.
    """

    def __init__(self, config: ModelConfig, max_context: int, dtype: str = "f32") -> None:
        self.max_context = max_context
        self.dtype = dtype
        self.ids: list[int] = []
        self._shape = (config.num_hidden_layers, config.num_key_value_heads, config.head_dim)
        self._allocate(min(FIRST_CAPACITY, max_context))

    def __len__(self) -> int:
        """Positions in use."""
        return len(self.ids)

    @property
    def capacity(self) -> int:
        """Positions there is room for; when it changes, so do the arrays of `layer`."""
        return int(self.keys.shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, room included."""
        return int(self.keys.nbytes + self.values.nbytes)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values that one position takes."""
        return int(self.nbytes // self.capacity)

    def layer(self, index: int) -> tuple[Numbers, Numbers]:
        """Keys and values of one layer, each (kv_heads, capacity) rows (see `kernels.cached`)."""
        return self.keys[index], self.values[index]

    def reuse(self, ids: Sequence[int]) -> int:
        """Keep the longest common prefix with `ids` and forget the rest.

        Returns:
            How many of `ids` need not be read again: at most all but the last one, whose logits
            are wanted.
        """
        most = min(len(self.ids), len(ids) - 1)
        shared = next((i for i in range(most) if self.ids[i] != ids[i]), most)
        self.trim(shared)
        return shared

    def trim(self, length: int) -> None:
        """Forget all positions from `length` on."""
        del self.ids[length:]

    def reserve(self, length: int) -> None:
        """Make room for `length` positions in all.

        Raises:
            ContextError: that is more than `max_context`.
        """
        if length > self.max_context:
            raise ContextError(
                f"{length} tokens do not fit into a context of {self.max_context}; "
                "shorten the text or raise the context with --max-context."
            )
        if length <= self.capacity:
            return
        capacity = self.capacity
        while capacity < length:
            capacity *= 2
        used, keys, values = len(self.ids), self.keys, self.values
        self._allocate(min(capacity, self.max_context))
        self.keys[:, :, :used] = keys[:, :, :used]
        self.values[:, :, :used] = values[:, :, :used]

    def _allocate(self, capacity: int) -> None:
        layers, heads, head_dim = self._shape
        # Memory that is never touched costs nothing.
        shape = (layers, heads, capacity)
        self.keys: Numbers = empty_rows(self.dtype, shape, head_dim)
        self.values: Numbers = empty_rows(self.dtype, shape, head_dim)
