"""Buffers: the arrays of one forward pass, and which of their rows belong to which sequence.

A pass reads one number of tokens for each of its sequences: many for one (a prompt), one for one
(decoding), or one for each of several (a batch). Knows nothing of weights, plans or KV caches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sparity_edge.arrays import Floats, Integers, rows
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.model.applied_plan import MOST_GAINS
from sparity_edge.text.token_ids import checked_ids


@dataclass(frozen=True)
class SequenceRows:
    """The rows of one sequence in the arrays that attention takes, one row a token."""

    q: Floats  # (tokens, heads * head_dim)
    k: Floats  # (tokens, kv_heads * head_dim)
    v: Floats
    mixed: Floats  # (tokens, heads * head_dim)
    position: Integers  # (1,), of the first token


class Buffers:
    """The arrays of a forward pass over a fixed number of tokens.

    Args:
        config: gives the sizes.
        sequences: how many there are; their rows follow each other.
        tokens: read for each of them.
        outputs: how many rows, the last ones, get logits.
        keep_up: leave `up` as it is, where the FFN would put its product with the gate.
    """

    def __init__(
        self,
        config: ModelConfig,
        sequences: int,
        tokens: int,
        outputs: int,
        *,
        keep_up: bool = False,
    ) -> None:
        heads = config.num_attention_heads * config.head_dim
        kv_heads = config.num_key_value_heads * config.head_dim
        count = tokens * sequences
        self._vocab_size = config.vocab_size
        self.ids = np.zeros(count, dtype=np.int64)
        self.positions = np.zeros(sequences, dtype=np.int64)  # of each sequence's first token
        self.x = rows(count, config.hidden_size)  # the residual stream
        self.h = rows(count, config.hidden_size)  # its normalised copy
        # What half of a layer gives, where that is normed before it is added.
        self.added = rows(count, config.hidden_size) if config.norms.after_ffn else self.x
        self.q = rows(count, heads)
        self.k = rows(count, kv_heads)
        self.v = rows(count, kv_heads)
        self.mixed = rows(count, heads)  # what attention gives
        self.gate = rows(count, config.intermediate_size)
        self.up = rows(count, config.intermediate_size)
        # What goes into down_proj, by default in the place of one of its factors.
        self.middle = rows(count, config.intermediate_size) if keep_up else self.up
        self.exponents = rows(count, MOST_GAINS)  # of the gains of one half of a layer
        self._low_rank: dict[tuple[str, int], Floats] = {}
        self.logits = rows(outputs, config.vocab_size)  # of the last `outputs` tokens
        self.sequences = tuple(self._rows_of(index, tokens) for index in range(sequences))

    def set_ids(self, ids: Iterable[int]) -> None:
        """Have a pass read these tokens.

        All ids come by here, whoever chose them, before the embedding is read at their rows.

        Args:
            ids: as many as the pass has rows.

        Raises:
            OptionError: one is no row of the embedding.
        """
        self.ids[:] = checked_ids(ids, self._vocab_size)

    def exchange(self) -> None:
        """Let what is in h be the residual stream, and the array of x that of its next copy."""
        self.x, self.h = self.h, self.x

    def low_rank(self, linear: str, rank: int) -> Floats:
        """(tokens, rank): what goes through the middle of a LoRA adapter beside a linear."""
        if (linear, rank) not in self._low_rank:
            self._low_rank[linear, rank] = rows(len(self.ids), rank)
        return self._low_rank[linear, rank]

    def _rows_of(self, index: int, tokens: int) -> SequenceRows:
        own = slice(tokens * index, tokens * (index + 1))
        q, k, v, mixed = (each[own] for each in (self.q, self.k, self.v, self.mixed))
        return SequenceRows(q, k, v, mixed, self.positions[index : index + 1])
