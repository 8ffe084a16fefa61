"""Generator: text in, text out; the one door to the runtime for Python, chat and server.

It joins tokenizer, model and sampler and knows nothing of weights, kernels or sparsity. One
Generator holds one conversation's cache: it answers one call at a time, and every call passes all
of its text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.dial import Dial
from sparity_edge.errors import ContextError, OptionError, SparityError
from sparity_edge.loading import (
    checked_cache_dtype,
    checked_context,
    checked_dial,
    checked_threads,
    default_cache_dtype,
    demand_compiler,
    give_memory_back,
)
from sparity_edge.parameters import SamplingParams
from sparity_edge.progress import Progress, silent
from sparity_edge.results import Completion, Meter, Step

if TYPE_CHECKING:
    from sparity_edge.config import ModelConfig
    from sparity_edge.kernels.buffers import Floats
    from sparity_edge.model import Model
    from sparity_edge.tokenizer import Tokenizer

DEFAULT_MODEL = "smollm2-135m"

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]


class Generator:
    """A loaded model that answers; made by `Generator.load`, usable as a context manager."""

    def __init__(
        self, path: Path, model: Model, tokenizer: Tokenizer, info: dict[str, Any]
    ) -> None:
        self.path = path
        self.tokenizer = tokenizer
        self._model = model
        self._dial = Dial(path, model)
        self._sparse_prefill = False
        self._info = info
        self._busy = threading.Lock()
        self._call = 0  # number of the latest call, so that an older one notices it is over
        self._end_ids = {*model.config.eos_token_ids, *tokenizer.eos_token_ids}

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        dtype: str | None = None,
        threads: int | None = None,
        sparsity: float | None = None,
        plan: str | None = None,
        level: float | None = None,
        sparse_prefill: bool = False,
        max_context: int | None = None,
        cache_dtype: str | None = None,
        offline: bool = False,
        progress: Progress = silent,
        notify: Callable[[str], None] = lambda _: None,
    ) -> Generator:
        """Load a model, packing it into the cache first if that has not been done.

        Args:
            model: a packed folder, a Hugging Face folder, a GGUF file, a hub id or an alias.
            dtype: "f32", "bf16", "int8" or "int4"; None keeps the numbers of a quantised source
                and makes int8 of any other.
            threads: how many cores to use; None: all physical cores this process may use.
            sparsity: share of decoder-block weight bytes to skip; 0 and None read all of them.
            plan: the plan to follow; None: the model's default. A model that is not a packed folder
                is calibrated first if that has not been done.
            level: the plan's own nominal level, in place of `sparsity`.
            sparse_prefill: thin prompts as well, all but their first four tokens.
            max_context: positions of the cache; None: the model's own, at most 32768.
            cache_dtype: "f32", "bf16" or "int8" for keys and values; None: bf16, or f32 where all
                weights are.
            offline: use only what is on this machine.
            progress: told of downloads, packing and compiling.
            notify: given one sentence before something is made that stays on disk.

        Raises:
            OptionError: an argument cannot be honoured.
            SourceError, ConfigError, FormatError: the model cannot be found, read or run.
        """
        demand_compiler()
        threads = checked_threads(threads)
        checked_cache_dtype(cache_dtype)
        checked_dial(sparsity, level)
        notes: dict[str, Any] = {"offline": offline, "progress": progress, "notify": notify}
        if sparsity or level or plan:
            from converters.ready import prepare_planned

            path = prepare_planned(str(model), dtype=dtype, plan=plan, threads=threads, **notes)
        else:
            from converters.pack import PackOptions
            from converters.store import prepare

            path = prepare(str(model), PackOptions(dtype=dtype), **notes)
        generator = cls._open(path, threads, max_context, cache_dtype)
        generator.sparse_prefill = sparse_prefill
        try:
            generator.set_plan(plan, sparsity=sparsity, level=level)
        except BaseException:
            generator.close()
            raise
        return generator

    @classmethod
    def _open(
        cls, path: Path, threads: int, max_context: int | None, cache_dtype: str | None
    ) -> Generator:
        from sparity_edge.config import ModelConfig
        from sparity_edge.format import open_packed
        from sparity_edge.kernels.program import ThreadedMachine
        from sparity_edge.model import Model
        from sparity_edge.tokenizer import Tokenizer

        started = time.perf_counter()
        packed = open_packed(path)
        loaded = time.perf_counter()
        config = ModelConfig.from_dict(packed.config, packed.generation_config)
        context = checked_context(max_context, config)
        model = Model(
            packed, ThreadedMachine(threads), context, cache_dtype or default_cache_dtype(packed)
        )
        info = {
            "source": packed.manifest.get("source"),
            "options": packed.manifest.get("options"),
            "weight_bytes": packed.nbytes,
            "load_seconds": loaded - started,
        }
        tokenizer = Tokenizer.from_folder(path)
        give_memory_back()
        return cls(path, model, tokenizer, info)

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self._model.config

    @property
    def max_context(self) -> int:
        """The most positions a prompt and its answer may take together."""
        return self._model.cache.max_context

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self._model.threads

    @property
    def sparsity(self) -> float:
        """The share of decoder-block weight bytes that decoding skips; may be set between calls."""
        return self._dial.sparsity

    @sparsity.setter
    def sparsity(self, share: float) -> None:
        self.set_plan(sparsity=share)

    @property
    def plan(self) -> str | None:
        """The name of the plan in force; None while everything is read."""
        return self._dial.name

    def set_plan(
        self, name: str | None = None, *, sparsity: float | None = None, level: float | None = None
    ) -> None:
        """Follow a plan of the packed folder from the next token on.

        Args:
            name: of the plan; None: the one followed before, else the model's default.
            sparsity: share of decoder-block weight bytes to skip; 0 reads everything.
            level: the plan's own nominal level, in place of `sparsity`.

        Raises:
            OptionError: both or a wrong value were given, there is no such plan, or the folder is
                packed so that what it skips cannot be skipped.
            FormatError: the plan is damaged.
        """
        with self._busy:
            self._dial.turn(name, sparsity, level)

    @property
    def sparse_prefill(self) -> bool:
        """Whether the plan applies to prompts and `logits` too, all but their first four tokens."""
        return self._sparse_prefill

    @sparse_prefill.setter
    def sparse_prefill(self, wanted: bool) -> None:
        self._sparse_prefill = bool(wanted)

    def info(self) -> dict[str, Any]:
        """What there is to know about the loaded model, ready for JSON."""
        config = self.config
        return {
            "path": str(self.path),
            **self._info,
            "model_type": config.model_type,
            "parameters": self._model.parameters,
            "dtypes": self._model.dtypes,
            "layers": config.num_hidden_layers,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "attention_heads": config.num_attention_heads,
            "key_value_heads": config.num_key_value_heads,
            "vocab_size": config.vocab_size,
            "model_context": config.max_position_embeddings,
            "max_context": self.max_context,
            "cache_dtype": self._model.cache.dtype,
            "cache_bytes_per_token": self._model.cache.bytes_per_token,
            "threads": self.threads,
            "sparsity": self.sparsity,
            **self._dial.facts(),
        }

    def plans(self) -> dict[str, dict[str, float]]:
        """The plans that the packed folder carries: name -> level -> active weight fraction."""
        return self._dial.active_by_level()

    def compile(self, progress: Progress = silent) -> None:
        """Get the machine code ready; without it the first call does so."""
        self._model.compile(progress)

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids a prompt stands for.

        Args:
            prompt: a text (continued as it stands), messages with "role" and "content" (rendered
                with the model's chat template), or token ids.

        Raises:
            OptionError: the prompt is empty or holds what is no token id.
            TemplateError: the messages cannot be rendered.
        """
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt)
        elif all(isinstance(item, Mapping) for item in prompt):
            ids = self.tokenizer.encode_chat(prompt) if prompt else []  # type: ignore[arg-type]
        else:
            ids = _checked_ids(prompt, self.config.vocab_size)
        if not ids:
            raise OptionError("The prompt is empty; give at least one word.")
        return ids

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
        from sparity_edge.sampling import Sampler

        params = params or SamplingParams()
        ids = self.encode(prompt)
        if len(ids) > self.max_context - 1:
            raise ContextError(
                f"The prompt has {len(ids)} tokens and the context holds {self.max_context}; "
                "shorten the prompt or raise the context with --max-context."
            )
        sampler = Sampler(params, self.config.vocab_size)
        self._call += 1
        return self._steps(ids, params, sampler, self._call)

    def generate(self, prompt: Prompt, params: SamplingParams | None = None) -> Completion:
        """The whole answer at once; arguments and errors as for `stream`."""
        steps = list(self.stream(prompt, params))
        return Completion(
            text="".join(step.text for step in steps),
            token_ids=tuple(step.token_id for step in steps),
            finish_reason=steps[-1].finish_reason or "length",
            stats=steps[-1].stats,
        )

    def chat(
        self, messages: Sequence[Mapping[str, Any]], params: SamplingParams | None = None
    ) -> Completion:
        """The whole answer to a conversation; arguments and errors as for `stream`."""
        return self.generate(messages, params)

    def logits(self, ids: Sequence[int]) -> Iterator[Floats]:
        """Logits after every one of some token ids, read from an empty cache.

        Yields:
            (tokens, vocab_size) float32 for the next few tokens, valid until the next step.

        Raises:
            ContextError: the ids do not fit.
            OptionError: there are none, or one is no token id.
        """
        ids = self.encode(_checked_ids(ids, self.config.vocab_size))
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

    @property
    def active_weight_fraction(self) -> float:
        """Of the latest pass: bytes of decoder-block weights read / all bytes of them."""
        return self._model.active_weight_fraction

    @property
    def densities(self) -> dict[str, float]:
        """Of the latest pass: active channels / channels at every site that the plan thins."""
        return self._model.densities

    def save_cache(self, path: str | Path) -> None:
        """Write the keys and values read so far to a file, for `load_cache`.

        Raises:
            FormatError: the file cannot be written.
        """
        from sparity_edge.cache_file import save

        with self._busy:
            save(self._model.cache, path, self.path)

    def load_cache(self, path: str | Path) -> None:
        """Take over the keys and values of a file; prompts that begin alike are read quickly.

        Raises:
            FormatError: the file is damaged or was written with another model.
            ContextError: it holds more than `max_context` positions.
        """
        from sparity_edge.cache_file import load

        with self._busy:
            load(self._model.cache, path, self.path)

    def close(self) -> None:
        """Give the threads back; the Generator cannot answer afterwards."""
        self._call += 1
        self._model.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _steps(
        self, ids: list[int], params: SamplingParams, sampler: Any, call: int
    ) -> Iterator[Step]:
        from sparity_edge.stopping import StopStrings

        decoder, stops = self.tokenizer.stream(), StopStrings(params.stop)
        meter = Meter(len(ids))
        pending, generated, finish = ids, 0, None
        while finish is None:
            with self._busy:
                self._refuse_stale(call)
                started = time.perf_counter()
                if generated == 0:
                    meter.cached = self._model.cache.reuse(ids)
                    pending = ids[meter.cached :]
                logits = self._model.read(pending, thin=generated > 0 or self._sparse_prefill)
                token, logprob = sampler.sample(logits, ids)
                seconds = time.perf_counter() - started
                meter.add(seconds, self._model.active_weight_fraction, self._model.densities)
            ids = [*ids, token] if generated == 0 else ids
            if generated > 0:
                ids.append(token)
            generated += 1
            ended = token in self._end_ids and not params.ignore_eos
            text, stopped = stops.push("" if ended else decoder.push(token))
            if ended or stopped:
                finish = "stop"
            elif generated == params.max_tokens or len(ids) >= self.max_context:
                finish = "length"
            if finish is not None and not stopped:
                text += stops.push(decoder.flush())[0] + stops.flush()
            pending = [token]
            yield Step(text, token, logprob, finish, meter.statistics(generated))

    def _refuse_stale(self, call: int) -> None:
        if call != self._call:
            raise SparityError(
                "This answer was given up when another call of the same Generator began; "
                "load a second Generator to answer two at once."
            )


def _checked_ids(prompt: Sequence[Any], vocab_size: int) -> list[int]:
    for token in prompt:
        if isinstance(token, bool) or not hasattr(token, "__index__"):
            raise OptionError(
                f"{token!r} is neither a message nor a token id; give a text, messages or ids."
            )
        if not 0 <= int(token) < vocab_size:
            raise OptionError(
                f"Token id {int(token)} lies outside the vocabulary, which ends at "
                f"{vocab_size - 1}."
            )
    return [int(token) for token in prompt]
