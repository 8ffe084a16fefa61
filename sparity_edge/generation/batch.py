"""Batch: several sequences decoded together, each weight read once for one token of all of them.

Every sequence has a KV cache of its own; a prompt that begins like one that has been read takes
those keys and values over. A sequence that ends makes room for the next prompt. The lock is held
while the model works and not while a step is looked at.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparity_edge.errors import OptionError, SparityError
from sparity_edge.generation.constraint.constraint import Constraint
from sparity_edge.generation.loaded_model import LoadedModel, Prompt
from sparity_edge.generation.logits_processors import BatchProcessors, processors_by_prompt
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import DecodingSequence, sequence_of
from sparity_edge.generation.speculation.decode import speculation_of
from sparity_edge.generation.speculation.speculation import Speculation
from sparity_edge.generation.speculation.together import Together
from sparity_edge.model.kv_cache import KVCache, longest_shared

MOST_TOGETHER = 8  # more are bound by arithmetic, not by reading weights


class Batch:
    """Sequences that are decoded side by side.

    Args:
        loaded: the model; its own KV cache is looked at but not changed.
        sequences: none begun yet; as many as one likes.
    """

    def __init__(self, loaded: LoadedModel, sequences: Sequence[DecodingSequence]) -> None:
        self._model = loaded.model
        self._busy = loaded.busy
        self._demand_open = loaded.demand_open
        self._progress = loaded.progress
        self._sparse_prefill = loaded.sparse_prefill
        self._waiting = deque(enumerate(sequences))
        self._loaded, self._together = loaded, Together(loaded)
        self._running: list[tuple[int, Speculation]] = []

    def steps(self) -> Iterator[tuple[int, Step]]:
        """The steps of all sequences, each with the number of its sequence."""
        if len(self._waiting) > 1:  # before the lock is taken: it takes seconds, the first time
            self._model.machine.compile_batches(self._progress)
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < MOST_TOGETHER:
                    yield self._begin(*self._waiting.popleft())
                    self._drop_finished()
                yield from self._advance()
                self._drop_finished()
        finally:
            self._running.clear()
            self._model.release()

    def _drop_finished(self) -> None:
        self._running = [each for each in self._running if each[1].sequence.finish_reason is None]

    def _begin(self, index: int, sequence: DecodingSequence) -> tuple[int, Step]:
        """Read a prompt and choose the first token after it."""
        model = self._model
        with self._busy:
            self._demand_open()
            started = time.perf_counter()
            cache = model.new_kv_cache()
            self._share(sequence.ids, cache)
            self._loaded.take_over(cache, sequence.ids)
            sequence.meter.cached = len(cache)
            logits = model.read(sequence.ids[len(cache) :], self._sparse_prefill, cache)
            chosen = sequence.choose(logits)
            seconds = time.perf_counter() - started
            sequence.meter.add(seconds, model.active_weight_fraction, model.densities)
            step = sequence.take(*chosen)
            self._loaded.keep(cache)
            self._running.append((index, speculation_of(self._loaded, sequence, cache)))
        return index, step

    def _share(self, ids: Sequence[int], cache: KVCache) -> None:
        """Take over the longest beginning that is in memory."""
        others = [self._model.kv_cache, *(each.cache for _, each in self._running)]
        best = longest_shared(others, ids)
        if best is not None:
            cache.copy(*best)

    def _advance(self) -> Iterator[tuple[int, Step]]:
        """The next token of each sequence that is under way, or more of them."""
        if not self._running:
            return
        running = list(self._running)
        with self._busy:
            self._demand_open()
            found = self._together.steps([each for _, each in running])
        for (index, speculation), steps in zip(running, found, strict=True):
            for step in steps:
                yield index, step
            if speculation.error is not None:
                raise speculation.error


def sequences_of(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    params: SamplingParams | Sequence[SamplingParams] | None,
    processors: BatchProcessors = (),
    template_args: Mapping[str, Any] | None = None,
    constraint: Constraint | None = None,
) -> list[DecodingSequence]:
    """A sequence for each prompt; arguments and errors as for `Generator.stream_batch`.

    Args:
        loaded, prompts, params, processors, template_args: as there.
        constraint: what each text must follow; None: nothing.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise OptionError("A batch takes a list of prompts; put a single one into a list.")
    each = params if isinstance(params, Sequence) else [params] * len(prompts)
    if len(each) != len(prompts):
        raise OptionError(
            f"{len(prompts)} prompts and {len(each)} params were given; give one for all "
            "prompts or as many as prompts."
        )
    sequences = []
    functions = processors_by_prompt(processors, len(prompts))
    for index, (prompt, own, process) in enumerate(zip(prompts, each, functions, strict=True)):
        try:
            sequences.append(sequence_of(loaded, prompt, own, process, template_args, constraint))
        except SparityError as error:
            raise type(error)(f"Prompt {index}: {error}") from error
    return sequences
