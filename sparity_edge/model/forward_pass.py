"""ForwardPass: the decoder traced for one shape, and replayed for as many tokens as one likes.

What is recorded names the arrays of KV caches and rotary tables, so other caches, one that has
grown and one whose keys are rotated otherwise cost another recording (some milliseconds). Knows
nothing of prompts: `Model` cuts them into passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparity_edge.arrays import Floats
from sparity_edge.kernels.machines import Machine
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
        self.caches: tuple[KVCache, ...] = ()  # that it is recorded for
        self.recorded = False  # whether the latest run had to be recorded first
        self._decoder, self._machine = decoder, machine
        self._tokens = tokens
        self.buffers = Buffers(decoder.config, sequences, tokens, outputs)
        self._shapes: list[tuple[int, int]] = []  # of `caches`, when it was recorded
        self._replay: Callable[[bool], None] | None = None

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
        replay = self._recorded(tuple(caches))
        self.buffers.set_ids(ids)
        self.buffers.positions[:] = _positions(caches)
        replay(self._tokens > 1)
        for index, cache in enumerate(caches):
            own = ids[index * self._tokens :][: self._tokens]
            cache.append(own, as_prompt=self._tokens > 1 and self.plan is None)
        return self.buffers.logits

    def fits(self, caches: tuple[KVCache, ...]) -> bool:
        """Whether it is recorded for such caches as they are."""
        return (self.caches, self._shapes) == (caches, _shapes(caches))

    def _recorded(self, caches: tuple[KVCache, ...]) -> Callable[[bool], None]:
        self.recorded = not self.fits(caches)
        if self._replay is None or self.recorded:
            self.caches, self._shapes = caches, _shapes(caches)
            self._decoder.rope.cover(max(capacity for capacity, _ in self._shapes))
            self._replay = self._machine.prepare(self._forward, decoding=self._tokens == 1)
        return self._replay

    def _forward(self, ops: Operations) -> None:
        self.reader = self._decoder.forward(
            ops, self.buffers, self.caches, self.plan, self._screened
        )


def _shapes(caches: Sequence[KVCache]) -> list[tuple[int, int]]:
    """What a recording depends on of caches: their room, and how their keys are rotated."""
    return [(cache.capacity, cache.stretch) for cache in caches]


def _positions(caches: Sequence[KVCache]) -> list[int]:
    """Where the first tokens of caches go; behind each other, where it is one and the same."""
    found = [len(cache) for cache in caches]
    for index, cache in enumerate(caches[1:], 1):
        if cache is caches[index - 1]:
            found[index] = found[index - 1] + 1
    return found
