"""ModelHandle: what a Generator lets its user know and set, all of it the loaded model's.

It passes questions and settings on to the `LoadedModel` behind it, saves and loads the KV cache,
and numbers calls, so that an older one notices that it is over. Knows nothing of sampling,
sequences or batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import OptionError, SparityError
from sparity_edge.generation.loaded_model import LoadedModel, Prompt
from sparity_edge.progress import Progress, silent

if TYPE_CHECKING:
    from sparity_edge.config.model_config import ModelConfig
    from sparity_edge.generation.params import SamplingParams
    from sparity_edge.plans.setting import Setting
    from sparity_edge.plans.sparsity_choice import SparsityChoice
    from sparity_edge.text.tokenizer import Tokenizer


class ModelHandle:
    """Properties and settings of a loaded model.

    Args:
        loaded: the model in memory.
    """

    _loaded: LoadedModel | None = None  # of an object that was not made by `load`

    def __init__(self, loaded: LoadedModel) -> None:
        if not isinstance(loaded, LoadedModel):
            raise OptionError("A Generator is made by Generator.load(MODEL), not by its class.")
        self._loaded = loaded
        self._calls = itertools.count(1)
        self._call = 0  # number of the latest call

    @property
    def loaded(self) -> LoadedModel:
        """The model in memory, which computes.

        Raises:
            SparityError: it is closed.
        """
        self._known.demand_open()
        return self._known

    @property
    def _known(self) -> LoadedModel:
        """The model with all that is known of it, closed or not."""
        if self._loaded is None:
            raise SparityError("This Generator has no model; make one with Generator.load(MODEL).")
        return self._loaded

    @property
    def path(self) -> Path:
        """The packed folder that the model was read from."""
        return self._known.path

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._known.tokenizer

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self._known.config

    @property
    def max_context(self) -> int:
        """Positions of the KV cache: the most that a prompt and its completion take together."""
        return self._known.max_context

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self._known.model.threads

    @property
    def default_params(self) -> SamplingParams:
        """What a call without params goes by: the model's generation_config.json, else ours."""
        return self.loaded.default_params

    @property
    def sparsity(self) -> float:
        """The share of decoder weight bytes that decoding skips; may be set between calls."""
        return self._known.plan_setting.sparsity

    @sparsity.setter
    def sparsity(self, share: float) -> None:
        self.set_plan(sparsity=share)

    @property
    def plan(self) -> str | None:
        """The name of the plan in force; None while everything is read."""
        return self._known.plan_setting.name

    def set_plan(
        self,
        name: str | None = None,
        *,
        sparsity: float | None = None,
        level: float | None = None,
        force: bool = False,
    ) -> None:
        """Follow a plan of the packed folder from the next token on, be it faster here or not.

        Args:
            name: of the plan; None: the one followed before, else the model's default.
            sparsity: share of decoder weight bytes to skip, 0 to 0.9; 0 reads everything.
            level: the plan's own nominal level, 0 to 0.9, in place of `sparsity`.
            force: follow it even where its KL to the dense model, measured on held-out text, is
                above 0.1 nats a token.

        Raises:
            TooLossyError: it is, and `force` was not given.
            OptionError: both or a wrong value were given, there is no such plan, or the folder is
                packed so that what it skips cannot be skipped.
            FormatError: the plan is damaged.

        Example:
            >>> generator.set_plan(sparsity=0.0)
            >>> generator.plan, generator.sparsity
            (None, 0.0)
        """
        self.loaded.set_plan(name, sparsity=sparsity, level=level, force=force)

    def apply(self, setting: Setting) -> None:
        """Follow a setting of the sparsity dial from the next token on, whatever that costs.

        Args:
            setting: a plan at a sparsity or at a level of its own, or `DENSE`.

        Raises:
            OptionError: the model does not carry the plan, or the setting is out of its range.
            FormatError: the plan is damaged.
        """
        self.loaded.apply(setting)

    @property
    def sparsity_choice(self) -> SparsityChoice | None:
        """What `load` made of its `sparsity` or `level` by speed and KL; None: nothing was asked.

        `str()` of it is one line; `set_plan` ends it.
        """
        return self._known.sparsity_choice

    @property
    def sparse_prefill(self) -> bool:
        """Whether the plan applies to prompts and `logits` too, all but their first four tokens."""
        return self._known.sparse_prefill

    @sparse_prefill.setter
    def sparse_prefill(self, wanted: bool) -> None:
        self.loaded.sparse_prefill = bool(wanted)

    @property
    def speculation(self) -> bool:
        """Whether guesses of the next tokens are read with the latest one, where that pays."""
        return self._known.speculation

    @speculation.setter
    def speculation(self, wanted: bool) -> None:
        self.loaded.speculation = bool(wanted)

    @property
    def active_weight_fraction(self) -> float:
        """Of the latest pass: bytes of decoder weights read / all bytes of them."""
        return self._known.model.active_weight_fraction

    @property
    def densities(self) -> dict[str, float]:
        """Of the latest pass: active channels / channels at every site that the plan sparsifies."""
        return self._known.model.densities

    def info(self) -> dict[str, Any]:
        """What there is to know about the loaded model, ready for JSON.

        Returns:
            Sizes in bytes, times in seconds, counts, and the plan in force.

        Example:
            >>> facts = generator.info()
            >>> facts["model_type"], facts["vocab_size"] == generator.config.vocab_size
            ('llama', True)
        """
        return self._known.info()

    def plans(self) -> dict[str, dict[str, float]]:
        """The plans that the packed folder carries: name -> level -> active weight fraction."""
        return self._known.plan_setting.active_by_level()

    def compile(self, progress: Progress = silent, *, tokens: int | None = None) -> None:
        """Get the machine code ready; without it the first call does so.

        Args:
            progress: told of kernels that are compiled.
            tokens: of the longest prompt to come, if that is known: a short one needs less.
        """
        self.loaded.model.compile(progress, tokens)

    def compile_behind(self) -> None:
        """Have another process compile what short prompts gain by, while nothing is asked.

        Returns at once. The process has low priority and ends with this one; prompts of up to 16
        tokens are read token by token until it has done its work, with the same result.
        """
        self.loaded.model.machine.compile_batches_behind()

    def encode(
        self, prompt: Prompt, *, template_args: Mapping[str, Any] | None = None
    ) -> list[int]:
        """The token ids a prompt stands for.

        Args:
            prompt: a text (continued as it stands), messages with "role" and "content" (rendered
                with the model's chat template), or token ids.
            template_args: variables of the chat template, such as {"enable_thinking": False}.

        Returns:
            Token ids, at least one, each below `config.vocab_size`.

        Raises:
            OptionError: the prompt is empty or holds what is no token id.
            TemplateError: the messages cannot be rendered.

        Example:
            >>> generator.encode([3, 1, 4])
            [3, 1, 4]
        """
        return self._known.encode(prompt, template_args)

    def save_cache(self, path: str | Path) -> None:
        """Write the KV cache to a file, for `load_cache`.

        Args:
            path: the file; replaced if it exists.

        Raises:
            FormatError: the file cannot be written.

        Example:
            >>> _ = generator.generate([5, 6, 7], SamplingParams(max_tokens=2, ignore_eos=True))
            >>> generator.save_cache("prompt.safetensors")
        """
        from sparity_edge.model.kv_cache_file import save

        with self.loaded.busy:
            save(self.loaded.model.kv_cache, path, self.path)

    def load_cache(self, path: str | Path) -> None:
        """Replace the KV cache by that of a file; prompts that begin like it are read quickly.

        Args:
            path: a file of `save_cache`.

        Raises:
            FormatError: the file is damaged or was written with another model.
            ContextError: it holds more than `max_context` positions.

        Example:
            >>> generator.save_cache("prompt.safetensors")
            >>> generator.load_cache("prompt.safetensors")
        """
        from sparity_edge.model.kv_cache_file import load

        with self.loaded.busy:
            self.new_call()
            load(self.loaded.model.kv_cache, path, self.path)

    def new_call(self) -> int:
        """The number of a new call; a sequence that is in progress is over."""
        self._call = call = next(self._calls)  # two threads never get one number
        return call

    def close(self) -> None:
        """Give the threads back, from any thread; what is asked of the model afterwards is refused.

        A sequence in progress ends with a SparityError at its next step. What is known of the model
        (`info`, `config`, `tokenizer` ...) stays.
        """
        if self._loaded is not None:
            self._loaded.close()

    def refuse_stale(self, call: int) -> None:
        """Raise SparityError if another call began after this one, or the model is closed."""
        self._known.demand_open()
        if call != self._call:
            raise SparityError(
                "This sequence was given up when another call of the same Generator began; "
                "load a second Generator to decode two at once."
            )
