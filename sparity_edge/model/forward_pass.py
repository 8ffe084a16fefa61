"""ForwardPass: the decoder traced for one shape, and replayed for as many tokens as one likes.

What is recorded names the arrays of KV caches and rotary tables. Other caches and grown ones take
the place of those, where they fit into as much room; more of it, and keys that are rotated
otherwise, cost another recording (8 to 30 ms for SmolLM2, of one sequence and of eight). Knows
nothing of prompts: `Model` cuts them into passes.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from sparity_edge.arrays import Floats, Numbers
from sparity_edge.kernels.kv_format import room_of
from sparity_edge.kernels.machines import Machine, Prepared
from sparity_edge.kernels.operations import Operations
from sparity_edge.model.applied_plan import AppliedPlan, Reader
from sparity_edge.model.buffers import Buffers
from sparity_edge.model.decoder import Decoder
from sparity_edge.model.kv_cache import KVCache
from sparity_edge.model.screened_head import ScreenedHead


class ForwardPass:
    """A forward pass over a fixed number of tokens of a fixed number of sequences.

    Args:
        decoder: what is traced.
        machine: what carries it out.
        sequences: how many there are.
        tokens: read for each of them; with one each, the pass is recorded for decoding. Tokens of
            one KV cache may count as sequences of one token each, see `run`.
        outputs: how many rows, the last ones, get logits. 0: the pass ends behind the last norm,
            with all rows of it in `buffers.h`.
        plan: which channels are skipped; None: none.
        screened: computes the logits of a single token; None: all of them are computed.
    """

    def __init__(
        self,
        decoder: Decoder,
        machine: Machine,
        sequences: int,
        tokens: int,
        outputs: int,
        plan: AppliedPlan | None = None,
        screened: ScreenedHead | None = None,
    ) -> None:
        self.plan = plan
        self._screened = screened
        self.reader: Reader | None = None  # counts what the pass reads, where there is a plan
        self.caches: tuple[KVCache, ...] = ()  # during a run: nothing is kept alive between two
        self.recorded = False  # whether the latest run had to be recorded first
        self._decoder, self._machine = decoder, machine
        self._tokens = tokens
        self.buffers = Buffers(decoder.config, sequences, tokens, outputs)
        # Whose rows the recording names, and their capacity then: rows that grow are new ones.
        self._named: list[tuple[weakref.ref[KVCache], int]] = []
        self._shapes: list[tuple[int, int]] = []  # of the caches that it was recorded for
        self._replay: Prepared | None = None
        self._moves = False

    def run(self, ids: Sequence[int], caches: Sequence[KVCache]) -> Floats:
        """Read tokens into KV caches that have room for them; the ids are theirs afterwards.

        Args:
            ids: those of the first cache, then those of the next one.
            caches: one a sequence. One that is named again gets its next token: every row then has
                the bits that it gets when it is read alone after those before it.

        Returns:
            The logits (outputs, vocab_size), valid until the next run.

        Raises:
            OptionError: an id is no row of the embedding.
        """
        self.caches = tuple(caches)
        replay = self._recorded()
        self.buffers.set_ids(ids)
        self.buffers.positions[:] = _positions(caches)
        replay(self._tokens > 1)
        for index, cache in enumerate(caches):
            own = ids[index * self._tokens :][: self._tokens]
            cache.append(own, as_prompt=self._tokens > 1 and self.plan is None)
        self.caches = ()
        return self.buffers.logits

    def fits(self, caches: Sequence[KVCache]) -> bool:
        """Whether it need not be recorded for such caches as they are."""
        return self._has_room(caches) and (self._moves or self._names(caches))

    def _recorded(self) -> Prepared:
        self.recorded = not self.fits(self.caches)
        if self._replay is None or self.recorded:
            self._shapes = _shapes(self.caches)
            self._decoder.rope.cover(max(room for room, _ in self._shapes))
            self._replay = self._machine.prepare(self._forward, decoding=self._tokens == 1)
            self._moves = self._tokens == 1 and self._replay.moves(_rows(self.caches))
        elif not self._names(self.caches):
            self._replay.move(_rows(self.caches))
        self._named = [(weakref.ref(each), each.capacity) for each in self.caches]
        return self._replay

    def _names(self, caches: Sequence[KVCache]) -> bool:
        return len(caches) == len(self._named) and all(
            known() is cache and capacity == cache.capacity
            for cache, (known, capacity) in zip(caches, self._named)
        )

    def _has_room(self, caches: Sequence[KVCache]) -> bool:
        """Whether it was recorded for as much room, and for keys that are rotated alike."""
        return len(caches) == len(self._shapes) and all(
            room <= most and stretch == own
            for (room, stretch), (most, own) in zip(_shapes(caches), self._shapes)
        )

    def _forward(self, ops: Operations) -> None:
        self.reader = self._decoder.forward(
            ops, self.buffers, self.caches, self.plan, self._screened
        )


def _shapes(caches: Sequence[KVCache]) -> list[tuple[int, int]]:
    """What a recording depends on of caches: their room, and how their keys are rotated."""
    return [(room_of(cache.capacity), cache.stretch) for cache in caches]


def _rows(caches: Sequence[KVCache]) -> list[Numbers]:
    """Keys and values of all layers, cache by cache."""
    return [rows for cache in caches for rows in (*cache.keys, *cache.values)]


def _positions(caches: Sequence[KVCache]) -> list[int]:
    """Where the first tokens of caches go; behind each other, where it is one and the same."""
    found = [len(cache) for cache in caches]
    for index, cache in enumerate(caches[1:], 1):
        if cache is caches[index - 1]:
            found[index] = found[index - 1] + 1
    return found
