"""Generator: text in, text out; the one door to the runtime for Python, chat and server.

It joins tokenizer, model and sampler and knows nothing of weights, kernels or sparsity. One
Generator holds one conversation's cache: it answers one call at a time, and every call passes all
of its text. Batches bring caches of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import ContextError, OptionError, SparityError
from sparity_edge.generation.loaded_model import DEFAULT_MODEL, LoadedModel, Prompt
from sparity_edge.generation.options import checked_ids
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.results import Completion, Step

if TYPE_CHECKING:
    from sparity_edge.arrays import Floats
    from sparity_edge.generation.sequence import Answer

__all__ = ["DEFAULT_MODEL", "Generator", "Prompt"]


class Generator(LoadedModel):
    """A loaded model that answers; made by `Generator.load`, usable as a context manager."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._call = 0  # number of the latest call, so that an older one notices it is over
        self._end_ids = {*self.config.eos_token_ids, *self.tokenizer.eos_token_ids}

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Step]:
        """Answer token by token.

        Closing the iterator, or Ctrl-C, ends the answer and leaves the Generator usable.

        Args:
            prompt: as for `encode`.
            params: how tokens are chosen; None: the defaults.

        Raises:
            ContextError: the prompt leaves no room for an answer.
            OptionError, TemplateError: as for `encode`.
            SparityError: another call began before this answer was finished.
        """
        # Not a generator function itself: mistakes are told now and not at the first step.
        answer = self._answer(prompt, params)
        self._call += 1
        return self._steps(answer, self._call)

    def generate(self, prompt: Prompt, params: SamplingParams | None = None) -> Completion:
        """The whole answer at once; arguments and errors as for `stream`."""
        return Completion.of(list(self.stream(prompt, params)))

    def chat(
        self, messages: Sequence[Mapping[str, Any]], params: SamplingParams | None = None
    ) -> Completion:
        """The whole answer to a conversation; arguments and errors as for `stream`."""
        return self.generate(messages, params)

    def stream_batch(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> Iterator[tuple[int, Step]]:
        """Answer several prompts at once; weights are read once for a token of all answers.

        Up to eight answers are under way together; where one ends, the next prompt begins. What
        `stream` has read stays as it is. Each step counts the time of the whole batch, and the
        weights that any of the answers needed.

        Args:
            prompts: each as for `encode`.
            params: for all prompts, or as many as prompts; None: the defaults.

        Yields:
            The number of a prompt and the next step of its answer.

        Raises:
            ContextError: a prompt leaves no room for an answer.
            OptionError, TemplateError: as for `encode`, or params are not as many as prompts.
        """
        from sparity_edge.generation.batch import Batch

        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise OptionError("A batch takes a list of prompts; put a single one into a list.")
        each = params if isinstance(params, Sequence) else [params] * len(prompts)
        if len(each) != len(prompts):
            raise OptionError(
                f"{len(prompts)} prompts and {len(each)} params were given; give one for all "
                "prompts or as many as prompts."
            )
        answers = []
        for index, (prompt, own) in enumerate(zip(prompts, each, strict=True)):
            try:
                answers.append(self._answer(prompt, own))
            except SparityError as error:
                raise type(error)(f"Prompt {index}: {error}") from error
        return Batch(self._model, answers, self._sparse_prefill, self._busy).steps()

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Completion]:
        """The whole answers in the order of the prompts; arguments and errors of `stream_batch`."""
        stream = self.stream_batch(prompts, params)
        steps: list[list[Step]] = [[] for _ in prompts]
        for index, step in stream:
            steps[index].append(step)
        return [Completion.of(each) for each in steps]

    def logits(self, ids: Sequence[int]) -> Iterator[Floats]:
        """Logits after every one of some token ids, read from an empty cache.

        Yields:
            (tokens, vocab_size) float32 for the next few tokens, valid until the next step.

        Raises:
            ContextError: the ids do not fit.
            OptionError: there are none, or one is no token id.
        """
        ids = self.encode(checked_ids(ids, self.config.vocab_size))
        self._call += 1
        call = self._call
        self._model.cache.trim(0)
        parts = self._model.read_all_logits(ids, self._sparse_prefill)
        while True:
            with self._busy:
                self._refuse_stale(call)
                part = next(parts, None)
            if part is None:
                return
            yield part

    def save_cache(self, path: str | Path) -> None:
        """Write the keys and values read so far to a file, for `load_cache`.

        Raises:
            FormatError: the file cannot be written.
        """
        from sparity_edge.model.kv_cache_file import save

        with self._busy:
            save(self._model.cache, path, self.path)

    def load_cache(self, path: str | Path) -> None:
        """Take over the keys and values of a file; prompts that begin alike are read quickly.

        Raises:
            FormatError: the file is damaged or was written with another model.
            ContextError: it holds more than `max_context` positions.
        """
        from sparity_edge.model.kv_cache_file import load

        with self._busy:
            self._call += 1
            load(self._model.cache, path, self.path)

    def close(self) -> None:
        """Give the threads back; the Generator cannot answer afterwards."""
        self._call += 1
        super().close()

    def _answer(self, prompt: Prompt, params: SamplingParams | None) -> Answer:
        """An answer that has not begun.

        Raises:
            ContextError, OptionError, TemplateError: as for `stream`.
        """
        from sparity_edge.generation.sampler import Sampler
        from sparity_edge.generation.sequence import Answer

        params = params or SamplingParams()
        ids = self.encode(prompt)
        if len(ids) > self.max_context - 1:
            raise ContextError(
                f"The prompt has {len(ids)} tokens and the context holds {self.max_context}; "
                "shorten the prompt or raise the context with --max-context."
            )
        sampler = Sampler(params, self.config.vocab_size)
        return Answer(ids, params, self.tokenizer, sampler, self._end_ids, self.max_context)

    def _steps(self, answer: Answer, call: int) -> Iterator[Step]:
        model = self._model
        while answer.finish_reason is None:
            with self._busy:
                self._refuse_stale(call)
                started = time.perf_counter()
                if not answer.generated:
                    answer.meter.cached = model.cache.reuse(answer.ids)
                thin = answer.generated > 0 or self._sparse_prefill
                logits = model.read(answer.ids[len(model.cache) :], thin=thin)
                chosen = answer.choose(logits)
                seconds = time.perf_counter() - started
                answer.meter.add(seconds, model.active_weight_fraction, model.densities)
            yield answer.take(*chosen)

    def _refuse_stale(self, call: int) -> None:
        if call != self._call:
            raise SparityError(
                "This answer was given up when another call of the same Generator began; "
                "load a second Generator to answer two at once."
            )
