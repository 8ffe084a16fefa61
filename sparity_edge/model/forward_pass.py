"""Pass: the arrays of one forward pass, and which tokens belong to which sequence.

A pass reads the same number of tokens for each of its caches: many for one cache (a prompt), one
for one cache (decoding), or one for each of several (a batch). It knows nothing of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sparity_edge.arrays import Floats, Integers, rows
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.kernels.sparse_vector import SparseVector
from sparity_edge.model.applied_plan import MOST_GAINS, AppliedPlan, Reader
from sparity_edge.model.kv_cache import Cache


class Pass:
    """The arrays of a forward pass over a fixed number of tokens.

    Args:
        config: gives the sizes.
        caches: of the sequences, whose rows follow each other.
        tokens: read for each of them.
        outputs: how many rows, the last ones, get logits.
        plan: what is skipped.
    """

    def __init__(
        self,
        config: ModelConfig,
        caches: Sequence[Cache],
        tokens: int,
        outputs: int,
        plan: AppliedPlan | None = None,
    ) -> None:
        heads = config.num_attention_heads * config.head_dim
        kv_heads = config.num_key_value_heads * config.head_dim
        count = tokens * len(caches)
        self.plan = plan
        self.caches = tuple(caches)
        self.tokens = tokens
        self.ids = np.zeros(count, dtype=np.int64)
        self.positions = np.zeros(len(caches), dtype=np.int64)  # of each sequence's first token
        self.x = rows(count, config.hidden_size)  # the residual stream
        self.h = rows(count, config.hidden_size)  # its normalised copy
        self.q = rows(count, heads)
        self.k = rows(count, kv_heads)
        self.v = rows(count, kv_heads)
        self.mixed = rows(count, heads)  # what attention gives
        attention = (self.q, self.k, self.v, self.mixed)
        self._own = [
            [*(each[tokens * i :][:tokens] for each in attention)] for i in range(len(caches))
        ]
        self._own_positions = [self.positions[i : i + 1] for i in range(len(caches))]
        self.gate = rows(count, config.intermediate_size)
        self.up = rows(count, config.intermediate_size)
        self.middle = self.up  # what goes into down_proj, in the place of one of its factors
        self.exponents = rows(count, MOST_GAINS)  # of the gains of one half of a layer
        self.logits = rows(outputs, config.vocab_size)  # of the last `outputs` tokens
        self.run: Callable[[bool], None] = lambda _: None
        self.prepared_for: list[tuple[Cache, int]] = []  # caches and their capacities
        self.forget()

    @property
    def room(self) -> list[tuple[Cache, int]]:
        """What the addresses of keys and values depend on."""
        return [(cache, cache.capacity) for cache in self.caches]

    def sequences(self) -> Iterator[tuple[Floats, Floats, Floats, Floats, Integers, Cache]]:
        """Of each sequence its rows of q, k, v and mixed, its position (1,) and its cache."""
        for (q, k, v, mixed), position, cache in zip(
            self._own, self._own_positions, self.caches, strict=True
        ):
            yield q, k, v, mixed, position, cache

    def forget(self) -> None:
        """Before another recording: the sparse vectors of the plan, and for which pieces."""
        self.vectors: dict[int, SparseVector] = {}
        self.used: list[tuple[int, str]] = []
        self.active: list[SparseVector] = []
        self.reader: Reader | None = None
