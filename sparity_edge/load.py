"""From a model's name to a Generator: find it, pack it if that has not been done, read it.

The only library file that imports `converters`: whatever is no packed folder becomes one in the
pack cache first, and is calibrated where it is to be sparsified.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.choices import CACHE_DIR_MB, DEFAULT_MODEL, DEFAULT_PLAN
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.generation.options import checked_context, checked_dial, checked_kv_dtype
from sparity_edge.generation.plan_setting import PlanSetting
from sparity_edge.model.facts import UnreadModel, facts_of
from sparity_edge.plans.setting import Setting
from sparity_edge.progress import QUIET, CallContext, Progress, silent, unheard
from sparity_edge.system.headroom import demand_compiler_space
from sparity_edge.system.memory import COMPILER, give_code_back, give_heap_back
from sparity_edge.system.threads import checked_threads, demand_compiler

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator
    from sparity_edge.kernels.machines import Machine


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    dtype: str | None = None,
    threads: int | None = None,
    sparsity: float | None = None,
    plan: str | None = None,
    level: float | None = None,
    force: bool = False,
    sparse_prefill: bool = False,
    max_context: int | None = None,
    cache_dtype: str | None = None,
    cache_dir: str | Path | None = None,
    cache_dir_mb: int = CACHE_DIR_MB,
    full_head: bool = False,
    speculation: bool = True,
    draft: str | Path | None = None,
    offline: bool = False,
    lora: str | Sequence[str] = (),
    progress: Progress = silent,
    notify: Callable[[str], None] = unheard,
) -> Generator:
    """A Generator of a model; arguments and errors as for `Generator.load`, which calls this."""
    from sparity_edge.generation.generator import Generator

    demand_compiler()
    demand_compiler_space()
    threads = checked_threads(threads)
    checked_kv_dtype(cache_dtype)
    share = checked_dial(sparsity, level)
    context = CallContext(offline, progress, notify)
    model = named_with(str(model), lora)
    path = packed_folder(
        model, context, sparse=bool(share or plan), dtype=dtype, plan=plan, threads=threads
    )

    from sparity_edge.measure.prices_kept import KeptPrices

    def open_pack(path: Path) -> Generator:
        generator = Generator(open_model(path, threads, max_context, cache_dtype))
        generator.sparse_prefill, generator.speculation = sparse_prefill, speculation
        generator.loaded.price_book = KeptPrices(generator.loaded)
        generator.loaded.progress = progress
        if not full_head:
            try:
                set_screen(generator.loaded, context)
            except BaseException:
                generator.close()
                raise
        return generator

    if share:
        from sparity_edge.measure.dial import follow

        carried = carried_plans(model, path, plan, dtype)
        if len(carried) == 1:
            _demand_evidence(*carried[0], threads, context)
        generator = follow(
            Setting(plan, sparsity, level),
            carried,
            packed_folder(model, context, sparse=False, dtype=dtype),
            open_pack,
            threads=threads,
            cache_dtype=cache_dtype,
            force=force,
            progress=progress,
        )
    else:
        generator = open_pack(path)
    try:
        if not share:
            generator.set_plan(plan, sparsity=0)
        if draft is not None:
            _add_draft_model(generator.loaded, str(draft), context)
        if cache_dir is not None:
            generator.loaded.keep_prefixes(cache_dir, cache_dir_mb, notify)
    except BaseException:
        generator.close()
        raise
    return generator


def _add_draft_model(loaded: LoadedModel, draft: str, context: CallContext) -> None:
    """Have a smaller model guess what a loaded one will write, on its threads.

    Raises:
        OptionError: it has another vocabulary.
    """
    from sparity_edge.generation.speculation.draft_model import DraftModel, demand_same_vocabulary
    from sparity_edge.model.opening import open_folder

    threads = loaded.model.threads
    path = packed_folder(draft, context, sparse=False, threads=threads)
    positions = min(loaded.max_context, open_folder(path).config.max_position_embeddings)
    other = open_model(path, threads, positions, None, loaded.model.machine)
    demand_same_vocabulary(loaded.tokenizer, other.tokenizer, draft)
    set_screen(other, context)
    loaded.draft_model = DraftModel(other.model, loaded.model)


def named_with(model: str, lora: str | Sequence[str]) -> str:
    """The name of a model with LoRA adapters.

    Args:
        model: its own name.
        lora: folders, each with ":SCALE" behind it or without.

    Raises:
        OptionError: one is no name of a folder.
    """
    if not lora:
        return model
    from converters.adapters.names import with_adapters

    return with_adapters(model, lora)


def set_screen(loaded: LoadedModel, context: CallContext = QUIET) -> None:
    """Put the screen before a model's LM head, made if that has not been done.

    Args:
        loaded: the model; it keeps reading all of its head where a screen would not pay.
        context: whom it is told.
    """
    from converters.screen_file import ready_screen

    loaded.model.set_screen(ready_screen(loaded.model, loaded.tokenizer, context))


def describe(
    model: str | Path = DEFAULT_MODEL,
    *,
    dtype: str | None = None,
    threads: int | None = None,
    sparsity: float | None = None,
    plan: str | None = None,
    level: float | None = None,
    max_context: int | None = None,
    cache_dtype: str | None = None,
    context: CallContext = QUIET,
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """What `Generator.info` and `Generator.plans` would give of a model, without its weights.

    Args:
        model: as for `Generator.load`, and so are all others.
        context: what may be done to find the model, and whom it is told.

    Raises:
        OptionError, SourceError, ConfigError, FormatError: as `Generator.load`.
    """
    from sparity_edge.model.kv_cache import bytes_of_a_position, default_kv_dtype
    from sparity_edge.model.opening import open_folder

    threads = checked_threads(threads)
    checked_kv_dtype(cache_dtype)
    sparse = bool(checked_dial(sparsity, level) or plan)
    path = packed_folder(
        str(model), context, sparse=sparse, dtype=dtype, plan=plan, threads=threads
    )
    folder = open_folder(path)
    unread = UnreadModel(folder)
    setting = PlanSetting(path, unread)
    setting.change(plan, sparsity, level, force=True)
    kv_dtype = cache_dtype or default_kv_dtype(folder)
    facts = facts_of(
        folder,
        unread.plan,
        max_context=checked_context(max_context, folder.config),
        cache_dtype=kv_dtype,
        cache_bytes_per_token=bytes_of_a_position(folder.config, kv_dtype),
        threads=threads,
    )
    return facts, setting.active_by_level()


def packed_folder(
    model: str,
    context: CallContext = QUIET,
    *,
    sparse: bool,
    dtype: str | None = None,
    plan: str | None = None,
    threads: int | None = None,
) -> Path:
    """The packed folder of a model, made in the pack cache and calibrated if that is not done.

    Args:
        model: as for `Generator.load`, and so are dtype, plan and threads.
        context: what may be done to find the model, and whom it is told.
        sparse: whether a plan is to be followed; else the pack that is quickest to read whole.

    Raises:
        OptionError: there is no such plan and no method of that name, or a value is unknown.
        SourceError, ConfigError, FormatError: the model cannot be found, read or packed.
    """
    from converters.ready import prepare_for

    return prepare_for(model, sparse, context, dtype=dtype, plan=plan, threads=threads)


def carried_plans(
    model: str, path: Path, plan: str | None, dtype: str | None
) -> list[tuple[Path, str]]:
    """The plans to choose from: packed folders, each with the name of a plan that it carries.

    Args:
        model: as for `Generator.load`, and so are plan and dtype.
        path: the `packed_folder` of these.
    """
    from converters.ready import ready_plans
    from sparity_edge.plans.plan_file import plan_names

    if plan is not None:
        return [(path, plan)]
    own = [(path, each) for each in plan_names(path) or [DEFAULT_PLAN]]
    return ready_plans(model, dtype) or own


def _demand_evidence(path: Path, plan: str, threads: int, context: CallContext) -> None:
    """Have it known what the only plan to choose from changes of the text."""
    from converters.plan_evidence import ready_evidence

    ready_evidence(path, plan, threads, context)


def open_model(
    path: Path,
    threads: int,
    max_context: int | None,
    cache_dtype: str | None,
    machine: Machine | None = None,
) -> LoadedModel:
    """Read a packed folder into memory.

    Args:
        path: the packed folder.
        threads: how many compute.
        max_context, cache_dtype: as for `Generator.load`.
        machine: of another model, to compute on as well; None: one of its own.

    Raises:
        OptionError: the model has no context of that size.
        ConfigError, FormatError: the folder is damaged.
        SourceError: its tokenizer is damaged or another model's.
        ResourceError: its weights do not fit into memory.
    """
    from sparity_edge.kernels.program.machine import ThreadedMachine
    from sparity_edge.model.kv_cache import default_kv_dtype
    from sparity_edge.model.model import Model
    from sparity_edge.model.opening import open_folder
    from sparity_edge.packed.folder import read_weights
    from sparity_edge.text.tokenizer import Tokenizer

    folder = open_folder(path)
    context = checked_context(max_context, folder.config)
    tokenizer = Tokenizer.from_folder(path)
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read_weights, folder)
        # What importing and parsing took must not stand beside all of the weights.
        give_heap_back()
        give_code_back(COMPILER)
        tokenizer.demand_rows(folder.config.vocab_size)
        packed = reading.result()
    loaded = time.perf_counter()
    dtype = cache_dtype or default_kv_dtype(packed)
    model = Model(packed, machine or ThreadedMachine(threads), context, dtype)
    return LoadedModel(path, model, tokenizer, loaded - started)
