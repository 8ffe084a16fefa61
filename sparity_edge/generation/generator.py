"""Generator: text in, text out; the one door to the runtime for Python, chat and server.

It joins a loaded model and a sampler and knows nothing of weights, kernels or sparsity. One
Generator holds one conversation's KV cache: it answers one call at a time, and every call passes
all of its text. Batches bring KV caches of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.choices import DEFAULT_MODEL
from sparity_edge.errors import SparityError
from sparity_edge.generation.loaded_model import LoadedModel, Prompt
from sparity_edge.generation.options import checked_ids
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.results import Completion, Step
from sparity_edge.progress import Progress, silent

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sparity_edge.arrays import Floats
    from sparity_edge.config.model_config import ModelConfig
    from sparity_edge.generation.options import LoadOptions
    from sparity_edge.generation.sequence import DecodingSequence
    from sparity_edge.plans.setting import Setting
    from sparity_edge.text.tokenizer import Tokenizer

__all__ = ["Generator", "Prompt"]


class Generator:
    """A loaded model that answers; made by `Generator.load`, usable as a context manager.

    Args:
        loaded: the model in memory.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._call = 0  # number of the latest call, so that an older one notices it is over

    @staticmethod
    def load(model: str | Path = DEFAULT_MODEL, **options: Unpack[LoadOptions]) -> Generator:
        """Load a model, packing it into the pack cache first if that has not been done.

        Args:
            model: a packed folder, a Hugging Face folder, a GGUF file, a hub id or an alias.
            dtype: "f32", "bf16", "int8" or "int4"; None keeps the numbers of a quantised source
                and makes int8 of any other.
            threads: how many cores to use; None: all physical cores this process may use.
            sparsity: share of decoder weight bytes to skip; 0 and None read all of them.
            plan: the plan to follow; None: the model's default. A model that is not a packed folder
                is calibrated first if that has not been done.
            level: the plan's own nominal level, in place of `sparsity`.
            sparse_prefill: sparsify prompts as well, all but their first four tokens.
            max_context: positions of the KV cache; None: the model's own, at most 32768.
            cache_dtype: "f32", "bf16" or "int8" for keys and values; None: bf16, or f32 where all
                weights are.
            offline: use only what is on this machine.
            progress: told of downloads, packing and compiling.
            notify: given one sentence before something is made that stays on disk.

        Raises:
            OptionError: an argument cannot be honoured.
            SourceError, ConfigError, FormatError: the model cannot be found, read or run.
        """
        from sparity_edge.load import load

        return load(model, **options)

    def twin(self, *, threads: int | None = None) -> Generator:
        """Another one of the same weights in memory, with threads and a KV cache of its own.

        Args:
            threads: how many compute; None: as many as here.

        Raises:
            OptionError: that is no number of threads.
        """
        return Generator(self.loaded.twin(threads))

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
        from sparity_edge.generation.sequence import sequence_of

        # Not a generator function itself: mistakes are told now and not at the first step.
        sequence = sequence_of(self.loaded, prompt, params)
        return self._steps(sequence, self.new_call())

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
        """Answer several prompts at once; weights are read once for a token of all sequences.

        Up to eight sequences are decoded together; where one ends, the next prompt begins. What
        `stream` has read stays as it is. Each step counts the time of the whole batch, and the
        weights that any of the sequences needed.

        Args:
            prompts: each as for `encode`.
            params: for all prompts, or as many as prompts; None: the defaults.

        Yields:
            The number of a prompt and the next step of its answer.

        Raises:
            ContextError: a prompt leaves no room for an answer.
            OptionError, TemplateError: as for `encode`, or params are not as many as prompts.
        """
        from sparity_edge.generation.batch import Batch, sequences_of

        sequences = sequences_of(self.loaded, prompts, params)
        return Batch(self.loaded, sequences).steps()

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
        """Logits after every one of some token ids, read from an empty KV cache.

        Yields:
            (tokens, vocab_size) float32 for the next few tokens, valid until the next step.

        Raises:
            ContextError: the ids do not fit.
            OptionError: there are none, or one is no token id.
        """
        ids = self.encode(checked_ids(ids, self.config.vocab_size))
        model, call = self.loaded.model, self.new_call()
        model.cache.trim(0)
        parts = model.read_all_logits(ids, self.sparse_prefill)
        while True:
            with self.loaded.busy:
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

        with self.loaded.busy:
            save(self.loaded.model.cache, path, self.path)

    def load_cache(self, path: str | Path) -> None:
        """Take over the keys and values of a file; prompts that begin alike are read quickly.

        Raises:
            FormatError: the file is damaged or was written with another model.
            ContextError: it holds more than `max_context` positions.
        """
        from sparity_edge.model.kv_cache_file import load

        with self.loaded.busy:
            self.new_call()
            load(self.loaded.model.cache, path, self.path)

    def new_call(self) -> int:
        """The number of a new call; an answer that is under way is over."""
        self._call += 1
        return self._call

    def close(self) -> None:
        """Give the threads back; the Generator cannot answer afterwards."""
        self.new_call()
        self.loaded.model.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _steps(self, sequence: DecodingSequence, call: int) -> Iterator[Step]:
        model = self.loaded.model
        while sequence.finish_reason is None:
            with self.loaded.busy:
                self._refuse_stale(call)
                started = time.perf_counter()
                if not sequence.generated:
                    sequence.meter.cached = model.cache.reuse(sequence.ids)
                thin = sequence.generated > 0 or self.sparse_prefill
                logits = model.read(sequence.ids[len(model.cache) :], thin=thin)
                chosen = sequence.choose(logits)
                seconds = time.perf_counter() - started
                sequence.meter.add(seconds, model.active_weight_fraction, model.densities)
            yield sequence.take(*chosen)

    def _refuse_stale(self, call: int) -> None:
        if call != self._call:
            raise SparityError(
                "This answer was given up when another call of the same Generator began; "
                "load a second Generator to answer two at once."
            )

    # What there is to know and to set, all of it the loaded model's.

    @property
    def path(self) -> Path:
        """The packed folder that the model was read from."""
        return self.loaded.path

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.loaded.tokenizer

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.loaded.config

    @property
    def max_context(self) -> int:
        """The most positions a prompt and its answer may take together."""
        return self.loaded.max_context

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self.loaded.model.threads

    @property
    def sparsity(self) -> float:
        """The share of decoder weight bytes that decoding skips; may be set between calls."""
        return self.loaded.plan_setting.sparsity

    @sparsity.setter
    def sparsity(self, share: float) -> None:
        self.set_plan(sparsity=share)

    @property
    def plan(self) -> str | None:
        """The name of the plan in force; None while everything is read."""
        return self.loaded.plan_setting.name

    def set_plan(
        self, name: str | None = None, *, sparsity: float | None = None, level: float | None = None
    ) -> None:
        """Follow a plan of the packed folder from the next token on.

        Args:
            name: of the plan; None: the one followed before, else the model's default.
            sparsity: share of decoder weight bytes to skip; 0 reads everything.
            level: the plan's own nominal level, in place of `sparsity`.

        Raises:
            OptionError: both or a wrong value were given, there is no such plan, or the folder is
                packed so that what it skips cannot be skipped.
            FormatError: the plan is damaged.
        """
        self.loaded.set_plan(name, sparsity=sparsity, level=level)

    def apply(self, setting: Setting) -> None:
        """Follow a setting of the sparsity dial from the next token on; errors of `set_plan`."""
        self.loaded.apply(setting)

    @property
    def sparse_prefill(self) -> bool:
        """Whether the plan applies to prompts and `logits` too, all but their first four tokens."""
        return self.loaded.sparse_prefill

    @sparse_prefill.setter
    def sparse_prefill(self, wanted: bool) -> None:
        self.loaded.sparse_prefill = bool(wanted)

    @property
    def active_weight_fraction(self) -> float:
        """Of the latest pass: bytes of decoder weights read / all bytes of them."""
        return self.loaded.model.active_weight_fraction

    @property
    def densities(self) -> dict[str, float]:
        """Of the latest pass: active channels / channels at every site that the plan sparsifies."""
        return self.loaded.model.densities

    def info(self) -> dict[str, Any]:
        """What there is to know about the loaded model, ready for JSON."""
        return self.loaded.info()

    def plans(self) -> dict[str, dict[str, float]]:
        """The plans that the packed folder carries: name -> level -> active weight fraction."""
        return self.loaded.plan_setting.active_by_level()

    def compile(self, progress: Progress = silent) -> None:
        """Get the machine code ready; without it the first call does so."""
        self.loaded.model.compile(progress)

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids a prompt stands for.

        Args:
            prompt: a text (continued as it stands), messages with "role" and "content" (rendered
                with the model's chat template), or token ids.

        Raises:
            OptionError: the prompt is empty or holds what is no token id.
            TemplateError: the messages cannot be rendered.
        """
        return self.loaded.encode(prompt)
