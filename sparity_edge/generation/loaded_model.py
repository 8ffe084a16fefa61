"""LoadedModel: a model in memory with its tokenizer and the plan it follows.

What is set and asked between calls is here: the plan setting, what there is to know, and what
token ids a prompt stands for. `load` makes it of a packed folder, `Generator` decodes with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import OptionError, SparityError
from sparity_edge.generation.constraint.constraints import Constraints
from sparity_edge.generation.plan_setting import PlanSetting
from sparity_edge.generation.speculation.pace import Pace
from sparity_edge.generation.speculation.prices import PriceBook, Prices
from sparity_edge.generation.suggested import suggested_params
from sparity_edge.model.facts import facts_of
from sparity_edge.plans.plan import SparsityPlan
from sparity_edge.plans.setting import Setting
from sparity_edge.plans.sparsity_choice import SparsityChoice
from sparity_edge.progress import Progress, silent
from sparity_edge.system.threads import checked_threads
from sparity_edge.system.use_marks import UseMark
from sparity_edge.text.token_ids import checked_ids

if TYPE_CHECKING:
    from sparity_edge.config.model_config import ModelConfig
    from sparity_edge.generation.speculation.draft_model import DraftModel
    from sparity_edge.model.kv_cache import KVCache
    from sparity_edge.model.model import Model
    from sparity_edge.model.prefixes.disk_store import DiskStore
    from sparity_edge.text.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]


PACES_KEPT = 16  # of plans that were followed


class LoadedModel:
    """A model, its tokenizer, and the plan that decoding follows.

    Args:
        path: the packed folder that it was read from.
        model: the model.
        tokenizer: its tokenizer.
        load_seconds: what reading the weights took.
    """

    def __init__(self, path: Path, model: Model, tokenizer: Tokenizer, load_seconds: float) -> None:
        self.path = path
        self.model = model
        self.tokenizer = tokenizer
        self.plan_setting = PlanSetting(path, model)
        self.sparsity_choice: SparsityChoice | None = None
        self.sparse_prefill = False
        self.speculation = True  # whether tokens may be guessed, where that pays
        self.price_book: PriceBook | None = None  # where prices of passes are kept
        self._paces: dict[Hashable, Pace] = {}  # by plan, the latest last
        self.draft_model: DraftModel | None = None  # that guesses where the text has not been
        self.prefixes: DiskStore | None = None  # beginnings of prompts that were read before
        self.default_params = suggested_params(model.packed.generation_config)
        self.progress: Progress = silent  # told of what is compiled later on
        self.end_ids = frozenset({*model.config.eos_token_ids, *tokenizer.eos_token_ids})
        self.constraints = Constraints(tokenizer, model.config.vocab_size, self.end_ids)
        self.busy = threading.Lock()  # held while a pass runs
        self._load_seconds = load_seconds
        self._mark = UseMark([path])
        self._closed = False

    @property
    def pace(self) -> Pace:
        """How many guesses are read, under the plan in force: its passes have their own prices."""
        key = _key_of(self.model.plan)
        known = self._paces.pop(key, None) or Pace(Prices(self.price_book))
        self._paces[key] = known
        if len(self._paces) > PACES_KEPT:
            del self._paces[next(iter(self._paces))]
        return known

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self._paces[_key_of(self.model.plan)] = pace

    def close(self) -> None:
        """Give the threads back, once the pass that runs is over."""
        self._closed = True
        self.model.close()
        if self.prefixes is not None:
            self.prefixes.close()
        self._mark.close()

    def demand_open(self) -> None:
        """Raise SparityError if the model was closed."""
        if self._closed:
            raise SparityError("This Generator is closed; load the model again.")

    def twin(self, threads: int | None = None) -> LoadedModel:
        """A second model over the weights in memory, with threads and a KV cache of its own.

        Args:
            threads: how many compute; None: as many as here.

        Raises:
            OptionError: that is no number of threads.
        """
        from sparity_edge.kernels.program.machine import ThreadedMachine
        from sparity_edge.model.model import Model

        own = self.model
        machine = ThreadedMachine(own.threads if threads is None else checked_threads(threads))
        model = Model(own.packed, machine, own.kv_cache.max_context, own.kv_cache.dtype)
        model.set_screen(own.screen)
        other = LoadedModel(self.path, model, self.tokenizer, self._load_seconds)
        other.plan_setting = self.plan_setting.twin(model)
        other.sparse_prefill, other.progress = self.sparse_prefill, self.progress
        other.speculation, other.constraints = self.speculation, self.constraints
        other.prefixes = self.prefixes
        if model.threads == own.threads:  # what passes cost is another matter with more
            other.price_book = self.price_book
        return other

    def keep_prefixes(
        self, folder: str | Path, megabytes: int, notify: Callable[[str], None]
    ) -> None:
        """Keep what is read of prompts in files, and take it over from there.

        Args:
            folder: for the files of any models.
            megabytes: that they may have.
            notify: given one sentence where that fails.

        Raises:
            OptionError: that is no number of megabytes.
            FormatError: the folder cannot be made.
        """
        from sparity_edge.model.prefixes.disk_store import DiskStore

        if isinstance(megabytes, bool) or not isinstance(megabytes, int) or megabytes < 1:
            raise OptionError(f"cache_dir_mb={megabytes!r} is not a whole number from 1 on.")
        self.prefixes = DiskStore(Path(folder), self.path, megabytes << 20, notify)

    def take_over(self, cache: KVCache, ids: Sequence[int]) -> None:
        """Fill a KV cache with what is kept of the beginning of a prompt.

        Args:
            cache: that holds as much of it as is in memory.
            ids: of the prompt.
        """
        # With a plan in prompts keys and values depend on it; files hold those of all weights.
        if self.prefixes is None or self.skips_in_prompts:
            return
        self.model.stretch(cache, len(ids) - len(cache))
        self.prefixes.fill(cache, ids)

    def keep(self, cache: KVCache) -> None:
        """Keep what a KV cache holds of a prompt, beyond the end of this process."""
        if self.prefixes is not None:
            self.prefixes.keep(cache)

    @property
    def skips_in_prompts(self) -> bool:
        """Whether a plan applies to prompts."""
        return self.sparse_prefill and self.model.plan is not None

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def max_context(self) -> int:
        """Positions of the KV cache: the most that a prompt and its completion take together."""
        return self.model.kv_cache.max_context

    def set_plan(
        self,
        name: str | None = None,
        *,
        sparsity: float | None = None,
        level: float | None = None,
        force: bool = False,
    ) -> None:
        """Follow a plan of the packed folder from the next token on; see `Generator.set_plan`."""
        with self.busy:
            self.plan_setting.change(name, sparsity, level, force=force)
            self.sparsity_choice = None

    def apply(self, setting: Setting) -> None:
        """Follow a setting of the sparsity dial from the next token on, whatever that costs.

        Raises:
            OptionError: the model does not carry the plan, or the setting is out of its range.
        """
        if setting.dense:
            self.set_plan(sparsity=0.0)
        else:
            self.set_plan(setting.plan, sparsity=setting.sparsity, level=setting.level, force=True)

    def info(self) -> dict[str, Any]:
        """What there is to know about the loaded model, ready for JSON."""
        cache = self.model.kv_cache
        return facts_of(
            self.model.packed,
            self.model.plan,
            max_context=self.max_context,
            cache_dtype=cache.dtype,
            cache_bytes_per_token=cache.bytes_per_token,
            threads=self.model.threads,
            load_seconds=self._load_seconds,
        )

    def encode(self, prompt: Prompt, template_args: Mapping[str, Any] | None = None) -> list[int]:
        """The token ids a prompt stands for; see `Generator.encode`."""
        messages = isinstance(prompt, Sequence) and any(isinstance(m, Mapping) for m in prompt)
        if template_args and not messages:
            raise OptionError(
                "template_args are for messages, and this prompt is a text or token ids; use "
                "Generator.chat, or leave them out."
            )
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt)
        elif not hasattr(prompt, "__iter__"):
            raise OptionError(f"{prompt!r} is no prompt; give a text, messages or token ids.")
        elif all(isinstance(item, Mapping) for item in prompt):
            ids = (
                self.tokenizer.encode_chat(prompt, template_args=template_args)  # type: ignore[arg-type]
                if prompt
                else []
            )
        else:
            ids = checked_ids(prompt, self.config.vocab_size)
        if not ids:
            raise OptionError("The prompt is empty; give at least one word.")
        return ids


def _key_of(plan: SparsityPlan | None) -> Hashable:
    return None if plan is None else (plan.name, plan.sparsity)


def as_messages(talk: str | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """A conversation as messages; a string is one message of the user.

    Raises:
        OptionError: it is neither, or there is nothing in it.
    """
    if isinstance(talk, str):
        return as_messages([{"role": "user", "content": talk}] if talk.strip() else [])
    messages = [each for each in talk if isinstance(each, Mapping)] if _is_list(talk) else []
    if not _is_list(talk) or len(messages) < len(talk):
        raise OptionError(
            "A chat takes a string or a list of messages with 'role' and 'content'; "
            "Generator.generate takes token ids."
        )
    if not messages:
        raise OptionError("The prompt is empty; give at least one word.")
    return messages


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
