"""LoadedModel: a model in memory with its tokenizer and the plan it follows; it cannot answer yet.

What is set and asked between answers is here: loading, the dial, what there is to know, and what
token ids a prompt stands for. `generate` adds the answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import OptionError
from sparity_edge.generation.options import (
    checked_cache_dtype,
    checked_context,
    checked_dial,
    checked_ids,
    checked_threads,
    default_cache_dtype,
    demand_compiler,
)
from sparity_edge.generation.plan_setting import Dial
from sparity_edge.progress import Progress, silent
from sparity_edge.system.memory import COMPILER, give_code_back, give_heap_back

if TYPE_CHECKING:
    from typing_extensions import Self

    from sparity_edge.config.model_config import ModelConfig
    from sparity_edge.model.model import Model
    from sparity_edge.text.tokenizer import Tokenizer

DEFAULT_MODEL = "smollm2-135m"

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]


class LoadedModel:
    """What `load` gives, usable as a context manager."""

    def __init__(
        self, path: Path, model: Model, tokenizer: Tokenizer, info: dict[str, Any]
    ) -> None:
        self.path = path
        self.tokenizer = tokenizer
        self._model = model
        self._dial = Dial(path, model)
        self._sparse_prefill = False
        self._info = info
        self._busy = threading.Lock()  # held while a pass runs

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
    ) -> Self:
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
        from converters.ready import prepare_for

        thinned = bool(sparsity or level or plan)
        path = prepare_for(str(model), thinned, dtype=dtype, plan=plan, threads=threads, **notes)
        loaded = cls._open(path, threads, max_context, cache_dtype)
        loaded.sparse_prefill = sparse_prefill
        try:
            loaded.set_plan(plan, sparsity=sparsity, level=level)
        except BaseException:
            loaded.close()
            raise
        return loaded

    @classmethod
    def _open(
        cls, path: Path, threads: int, max_context: int | None, cache_dtype: str | None
    ) -> Self:
        from sparity_edge.config.model_config import ModelConfig
        from sparity_edge.kernels.kernel import start_compiler
        from sparity_edge.kernels.program.program import ThreadedMachine
        from sparity_edge.model.model import Model
        from sparity_edge.packed.folder import open_folder, read_weights
        from sparity_edge.text.tokenizer import Tokenizer

        folder = open_folder(path)
        config = ModelConfig.from_dict(folder.config, folder.generation_config)
        context = checked_context(max_context, config)
        tokenizer = Tokenizer.from_folder(path)
        started = time.perf_counter()
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(read_weights, folder)
            # What importing and parsing took must not stand beside all of the weights.
            give_heap_back()
            give_code_back(COMPILER)
            start_compiler()
            packed = reading.result()
        loaded = time.perf_counter()
        model = Model(
            packed, ThreadedMachine(threads), context, cache_dtype or default_cache_dtype(packed)
        )
        info = {
            "source": packed.manifest.get("source"),
            "options": packed.manifest.get("options"),
            "weight_bytes": packed.nbytes,
            "load_seconds": loaded - started,
        }
        return cls(path, model, tokenizer, info)

    def twin(self, *, threads: int | None = None) -> Self:
        """Another one of the same weights in memory, with threads and a cache of its own.

        Args:
            threads: how many compute; None: as many as here.

        Raises:
            OptionError: that is no number of threads.
        """
        from sparity_edge.kernels.program.program import ThreadedMachine
        from sparity_edge.model.model import Model

        own, threads = self._model, self.threads if threads is None else checked_threads(threads)
        machine = ThreadedMachine(threads)
        model = Model(own.packed, machine, own.cache.max_context, own.cache.dtype)
        other = type(self)(self.path, model, self.tokenizer, self._info)
        other._dial = self._dial.twin(model)
        other._sparse_prefill = self._sparse_prefill
        return other

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
        elif not hasattr(prompt, "__iter__"):
            raise OptionError(f"{prompt!r} is no prompt; give a text, messages or token ids.")
        elif all(isinstance(item, Mapping) for item in prompt):
            ids = self.tokenizer.encode_chat(prompt) if prompt else []  # type: ignore[arg-type]
        else:
            ids = checked_ids(prompt, self.config.vocab_size)
        if not ids:
            raise OptionError("The prompt is empty; give at least one word.")
        return ids

    @property
    def active_weight_fraction(self) -> float:
        """Of the latest pass: bytes of decoder-block weights read / all bytes of them."""
        return self._model.active_weight_fraction

    @property
    def densities(self) -> dict[str, float]:
        """Of the latest pass: active channels / channels at every site that the plan thins."""
        return self._model.densities

    def close(self) -> None:
        """Give the threads back; nothing can be read afterwards."""
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
