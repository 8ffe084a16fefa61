"""Model: a decoder with its KV cache, run over prompts, sequences and batches of sequences.

Prompts are read in chunks; a sequence is decoded token by token, several of them one token of each
at a time. What a forward pass computes is `decoder`'s affair; here it is decided which tokens go
into which pass and whether a plan applies to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from sparity_edge.arrays import Floats
from sparity_edge.kernels.machines import Machine
from sparity_edge.model.applied_plan import AppliedPlan, AppliedPlans, Reader
from sparity_edge.model.bytes_read import BytesRead
from sparity_edge.model.decoder import Decoder
from sparity_edge.model.forward_pass import ForwardPass
from sparity_edge.model.kv_cache import KVCache
from sparity_edge.model.prefixes.parts import FEW, cuts
from sparity_edge.model.recordings import Recordings, key_of
from sparity_edge.model.screened_head import HeadScreen, Ids, ScreenedHead, Wanted
from sparity_edge.model.zero_gates import zero_gates
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.plan import SparsityPlan
from sparity_edge.progress import Progress

# Attention sinks: what stands here is looked at by all later tokens, so nothing of it is skipped.
DENSE_POSITIONS = 4


class Model(BytesRead):
    """A decoder with its weights and one KV cache; others may be brought along.

    Args:
        packed: the weights, as `open_packed` gives them.
        machine: what carries out the operations.
        max_context: the most positions of the KV cache.
        cache_dtype: "f32", "bf16" or "int8".
    """

    def __init__(
        self, packed: PackedModel, machine: Machine, max_context: int, cache_dtype: str = "f32"
    ) -> None:
        self.config = packed.config
        self.kv_cache = KVCache(self.config, max_context, cache_dtype)
        self.machine = machine
        self.decoder = Decoder(packed, machine)
        self.packed = packed
        self._plan: AppliedPlan | None = None
        zeros = zero_gates(packed)  # are skipped without a plan, too, in decoding
        biases = self.decoder.biases
        self._always = AppliedPlan(zeros, packed, biases, machine) if zeros else None
        self._plans = AppliedPlans(packed, biases, machine)
        self._screened: ScreenedHead | None = None
        self._passes = Recordings()
        self.exact_ids: Ids | None = None  # logits that `read` computed last; None: all
        self._reader: Reader | None = None  # of the latest pass
        self.recorded = False  # whether that pass had to be recorded first
        self._read_one_by_one = False  # a few tokens, which can be read together

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self.machine.threads

    @property
    def plan(self) -> SparsityPlan | None:
        """What decoding skips."""
        return None if self._plan is None else self._plan.plan

    def set_plan(self, plan: SparsityPlan | None) -> None:
        """Skip what `plan` says from the next token on; None reads everything.

        Raises:
            OptionError: the model's layout does not let it be skipped.
        """
        skips = plan is not None and any(plan.layers)
        self._plan = self._plans.get_or_make(plan) if plan is not None and skips else None
        self._passes.keep(
            lambda key, _: key.plan in (None, self._always) or key.plan in self._plans
        )

    @property
    def screen(self) -> HeadScreen | None:
        """The screen before the LM head."""
        return None if self._screened is None else self._screened.packed

    def set_screen(self, screen: HeadScreen | None) -> None:
        """Have `read` screen the LM head where it is told what is wanted; None: never."""
        self._screened = None if screen is None else ScreenedHead(screen, self.machine)
        self._passes.keep(lambda key, _: not key.screened)

    def compile(self, progress: Progress, tokens: int | None = None) -> None:
        """Get machine code ready, telling how far it is.

        Args:
            progress: is told.
            tokens: of the longest prompt; None: any. Up to FEW of them need less.
        """
        self.machine.compile(progress, tokens is None or tokens > FEW)

    def close(self) -> None:
        """Give threads back."""
        self.machine.close()

    def new_kv_cache(self) -> KVCache:
        """An empty KV cache like the model's own."""
        return KVCache(self.config, self.kv_cache.max_context, self.kv_cache.dtype)

    def read(
        self,
        ids: Sequence[int],
        sparse: bool = False,
        cache: KVCache | None = None,
        wanted: Wanted | None = None,
        passes: int | None = None,
    ) -> Floats:
        """Append tokens to a KV cache.

        Up to FEW of them get the bits that they get one by one.

        Args:
            ids: one or more token ids.
            sparse: whether the plan applies, except at the first positions.
            cache: None: the model's own.
            wanted: which logits have to be exact; None: all. A pass over one token leaves it at
                those where the model has a screen, and `exact_ids` names them.
            passes: how many of those that read the ids are run; None: all.

        Returns:
            The logits (vocab_size,) after the last of them, valid until the next call.

        Raises:
            ContextError: they do not fit.
        """
        cache = self.kv_cache if cache is None else cache  # an empty one is false
        logits = np.empty(0, dtype=np.float32)
        asked = None if wanted is None else [wanted]
        cache.reserve(len(cache) + len(ids))  # once, not chunk by chunk
        self.stretch(cache, len(ids))
        for part, applies in islice(self._parts(ids, sparse, cache), passes):
            logits = self._run(part, [cache], 1, applies, asked)[-1]
        return logits

    def reads_few_alike(self, count: int, cache: KVCache | None = None) -> bool:
        """Whether `read_rows` gives so many tokens of one cache the bits that they get alone.

        Not where the plan applies to none yet, nor where keys are rotated anew on the way.
        """
        cache = self.kv_cache if cache is None else cache
        now, length = cache.stretch, len(cache)
        found = {self.decoder.rope.stretch(length + more, now, False) for more in (1, count)}
        early = self._plan is not None and length < DENSE_POSITIONS
        return found == {now} and not early and self.machine.batches_ready()

    def rows_recorded(self, caches: Sequence[KVCache], screened: bool) -> bool:
        """Whether `read_rows` of such caches has nothing to record first."""
        key = key_of(self._plan or self._always, caches, len(caches), screened)
        known = self._passes.get(key)
        return known is not None and known.fits(tuple(caches))

    def read_rows(
        self,
        ids: Sequence[int],
        caches: Sequence[KVCache],
        wanted: Sequence[Wanted] | None = None,
    ) -> list[tuple[Floats, Ids | None]]:
        """Append tokens and guesses of those after them, where `reads_few_alike`.

        Args:
            ids: up to FEW.
            caches: of each; what follows each other in one cache stands side by side.
            wanted: of each, which logits have to be exact; None: all.

        Returns:
            Of each the logits (vocab_size,) after it, valid until the next call, and the ids of
            those that are known; None: all.

        Raises:
            ContextError: they do not fit.
        """
        logits = self._run(ids, caches, len(ids), self._plan is not None, wanted)
        if wanted is None or self._screened is None:
            return [(row, None) for row in logits]
        return [(row, self._screened.exact_ids(index)) for index, row in enumerate(logits)]

    def read_all_logits(self, ids: Sequence[int], sparse: bool = False) -> Iterator[Floats]:
        """Append tokens and give the logits of every one, (up to CHUNK, vocab_size) at a time."""
        self.stretch(self.kv_cache, len(ids))
        for part, applies in self._parts(ids, sparse, self.kv_cache):
            yield self._run(part, [self.kv_cache], len(part), applies)

    def read_together(
        self, ids: Sequence[int], caches: Sequence[KVCache], sparse: bool = False
    ) -> Floats:
        """Append one token to each of several KV caches, reading the weights once for all.

        Args:
            ids: as many as caches.
            caches: KV caches, no two of them one.
            sparse: whether the plan applies, except to KV caches at their first positions.

        Returns:
            The logits (caches, vocab_size), valid until the next call.

        Raises:
            ContextError: a token does not fit.
        """
        for cache in caches:
            self.stretch(cache, 1)
        sparse = sparse and self._plan is not None
        early = [sparse and len(cache) < DENSE_POSITIONS for cache in caches]
        if not any(early) or all(early):
            return self._run(ids, caches, len(caches), sparse and not any(early))
        logits = np.empty((len(caches), self.config.vocab_size), dtype=np.float32)
        for group in (True, False):
            at = [index for index, each in enumerate(early) if each == group]
            chosen = [caches[index] for index in at]
            logits[at] = self._run([ids[index] for index in at], chosen, len(at), not group)
        return logits

    def release(self, over: KVCache | None = None) -> None:
        """Have recordings of a cache that is over serve the next one; None: let go of batches."""
        self._passes.release(self.kv_cache, over)

    def stretch(self, cache: KVCache, tokens: int) -> None:
        """Have keys rotated as a text with so many tokens more wants it, reading what is not again.

        transformers does so for Phi-3 alone: elsewhere its logits depend on what was cached.
        """
        wanted = self.decoder.rope.stretch(len(cache) + tokens, cache.stretch, tokens > FEW)
        for part, _ in self._parts(cache.set_stretch(wanted), False, cache):
            self._run(part, [cache], 1, False)

    def _parts(
        self, ids: Sequence[int], sparse: bool, cache: KVCache
    ) -> Iterator[tuple[Sequence[int], bool]]:
        """Chunks of `ids`, and whether the plan applies to them."""
        applies = sparse and self._plan is not None
        first, before = DENSE_POSITIONS if applies else 0, len(cache)
        for start, end in cuts(before, before + len(ids), first):
            yield ids[start - before : end - before], applies and start >= first

    def _run(
        self,
        ids: Sequence[int],
        caches: Sequence[KVCache],
        outputs: int,
        sparse: bool,
        wanted: Sequence[Wanted] | None = None,
    ) -> Floats:
        """Append ids to KV caches, as many to each, and give the logits of the last `outputs`."""
        tokens = len(ids) // len(caches)
        head = self._screened if wanted is not None and len(wanted) == len(ids) else None
        for cache, count in Counter(caches).items():
            cache.reserve(len(cache) + tokens * count)
        if len(caches) == 1 and tokens <= FEW:
            if tokens > 1 and not self.machine.batches_ready():
                return self._one_by_one(ids, caches, outputs, sparse)
            caches, tokens = [*caches] * tokens, 1
        this = self._pass(caches, tokens, outputs, sparse, head)
        if head is not None and wanted is not None:
            head.ask(wanted)
        logits = this.run(ids, caches)
        self._reader, self.recorded = this.reader, this.recorded
        self.exact_ids = None if head is None else head.exact_ids()
        return logits

    def _one_by_one(
        self, ids: Sequence[int], caches: Sequence[KVCache], outputs: int, sparse: bool
    ) -> Floats:
        """The bits of a pass over a few tokens, for as long as its kernels are not compiled."""
        if self._read_one_by_one:  # a process that reads a few tokens once may never do so again
            self.machine.compile_batches_behind()
        self._read_one_by_one = True
        rows = [self._run([each], caches, 1, sparse)[0].copy() for each in ids]
        return np.stack(rows[-outputs:])

    def _pass(
        self,
        caches: Sequence[KVCache],
        tokens: int,
        outputs: int,
        sparse: bool,
        head: ScreenedHead | None,
    ) -> ForwardPass:
        """Recorded before, where rows are decoded; prompts are recorded anew."""
        plan = self._plan if sparse else self._always if tokens == 1 else None

        def made() -> ForwardPass:
            return ForwardPass(self.decoder, self.machine, len(caches), tokens, outputs, plan, head)

        key = key_of(plan, caches, outputs, head is not None)
        return self._passes.get_or_make(key, made) if tokens == 1 else made()
