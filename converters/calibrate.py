"""Calibration: text through the dense model, and out come sparsity plans stored beside the weights.

One pass over the text serves every method: a layer's statistics are collected, each method fits the
layer, and the statistics are dropped before the next one. Memory: the residual stream of all tokens
(1.1 GB for 65,536 tokens at hidden size 4096) and the statistics of one layer (0.5 GB for 14,336
neurons) beside the weights. The same text gives the same plans, bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from converters.calibration.checkpoint import NOWHERE, Checkpoint, checkpoint
from converters.calibration.layer_weights import LayerWeights
from converters.calibration.observe import observe
from converters.calibration.statistics import LayerStatistics
from converters.calibration.windows import WINDOW, Windows, read_documents, token_windows
from converters.fan_out import Spread
from converters.methods import METHODS, AnyMethod, chosen_methods
from converters.methods.family import (
    SERVED_BY,
    LayerFit,
    LayerView,
    Method,
    ModelMethod,
    ModelView,
    assemble,
)
from converters.methods.fits_kept import fits_from, fits_to
from converters.pack import BUNDLED
from converters.pack_options import PackOptions
from converters.plan_folders import find_folders, layout_of
from converters.store import cached_pack, open_any, packed_path
from sparity_edge.arrays import Floats
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import OptionError
from sparity_edge.model.opening import open_folder
from sparity_edge.packed.folder import PackedFolder, PackedModel, read_weights
from sparity_edge.packed.manifest import content_of
from sparity_edge.plans.plan import PlanFamily
from sparity_edge.plans.plan_file import add_plan, fingerprint
from sparity_edge.progress import QUIET, CallContext, Progress, silent, unheard
from sparity_edge.system.threads import checked_threads
from sparity_edge.system.use_marks import UseMark
from sparity_edge.text.default_text import default_documents
from sparity_edge.text.tokenizer import Tokenizer

DEFAULT_TOKENS = 65536


@dataclass(frozen=True)
class Calibrated:
    """A plan family that was stored."""

    folder: Path
    family: PlanFamily


def calibrate(
    model: str,
    *,
    texts: Sequence[str | Path] = (),
    tokens: int = DEFAULT_TOKENS,
    methods: Sequence[str | AnyMethod] = ("all",),
    layout: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    workers: int = 1,
    cluster: str | None = None,
    offline: bool = False,
    progress: Progress = silent,
    notify: Callable[[str], None] = unheard,
) -> list[Calibrated]:
    """Calibrate a model and store the plans in its packed folder.

    Args:
        model: as for `Generator.load`. What is no packed folder is packed into the pack cache, in
            each layout that one of the methods needs.
        texts: UTF-8 files, or .jsonl with one {"text": ...} a line; none: the help of Python.
        tokens: how many of them to read, at least 4 windows of 1024.
        methods: names of `converters.methods.METHODS`, "all", or methods of your own
            (docs/adding-a-method.md).
        layout: store all plans in the pack of this layout; None: each in the layout it needs.
        dtype: as for `Generator.load`.
        threads: how many compute.
        workers: processes that methods which search divide their tasks among, each with a model of
            its own and its share of the threads.
        cluster: address of a Dask scheduler (tcp://host:port) whose workers do that instead. They
            must reach the packed folder under its path.
        offline, progress, notify: as for `Generator.load`.

    Raises:
        OptionError: an argument cannot be honoured, or the text is too short.
        SourceError, ConfigError, FormatError: the model cannot be found, read or run.
    """
    threads = checked_threads(threads)
    chosen = chosen_methods(methods)
    spread = Spread(workers, cluster)
    spread.demand()
    context = CallContext(offline, progress, notify)

    def pack(wanted: str) -> PackedFolder:
        return open_folder(cached_pack(model, PackOptions(dtype=dtype, layout=wanted), context))

    path = packed_path(model)
    named = None if path is None else open_folder(path)
    explicit = "all" not in methods
    needs = _needs(model, named, chosen, context, explicit=explicit)
    folders = find_folders(model, named, needs, layout, pack, explicit=explicit)
    folder = next(iter(folders.values()))
    packed = read_weights(folder)
    documents = read_documents(texts) if texts else default_documents()
    windows = _windows(packed, documents, tokens)
    notes = _notes(windows, [Path(text).name for text in texts])
    stored = []

    def store(carrier: PackedFolder, family: PlanFamily) -> None:
        add_plan(carrier, family)
        stored.append(Calibrated(carrier.path, family))

    @contextlib.contextmanager
    def resumed(kind: str, carrier: PackedFolder, names: list[str]) -> Iterator[Checkpoint]:
        if any(METHODS.get(each.name) is not each for each in chosen if each.name in names):
            yield NOWHERE  # what a method from elsewhere does may have changed since
            return
        text = [notes["tokens_sha256"], list(windows.shape)]
        with checkpoint(kind, content_of(carrier.path), names, text) as halfway:
            if halfway.begun:
                notify("Going on where a calibration that was interrupted stopped.")
            yield halfway

    # Work is shared among threads of our own; sums must not depend on how many BLAS would take.
    in_use = UseMark({each.path for each in folders.values()})
    with in_use, threadpool_limits(1, "blas"):
        of_layers = [each for each in chosen if isinstance(each, Method) and each.name in folders]
        if of_layers:
            names = [method.name for method in of_layers]
            with resumed("layers", folder, names) as halfway:
                fits = fit_methods(
                    packed, windows, of_layers,
                    threads=threads, progress=progress, checkpoint=halfway,
                )  # fmt: skip
            for method in of_layers:
                carrier = folders[method.name]
                family = assemble(
                    method, fits[method.name], _specs(carrier), fingerprint(packed), notes
                )
                store(carrier, family)
        for each in chosen:
            if isinstance(each, ModelMethod) and each.name in folders:
                carrier = folders[each.name]
                with resumed("model", carrier, [each.name]) as halfway:
                    view = ModelView(
                        read_weights(carrier), layout_of(carrier), windows, notes, threads,
                        progress, halfway, spread,
                    )  # fmt: skip
                    store(carrier, each.fit(view))
    return stored


def other_layout(path: Path, plan: str) -> str | None:
    """The layout that a packed folder would need to carry a plan; None where its own will do.

    Args:
        path: the packed folder.
        plan: a name of `converters.methods.METHODS`.

    Raises:
        FormatError: the folder is damaged.
    """
    named = open_folder(path)
    layouts = _needs(str(path), named, chosen_methods([plan]), QUIET)[plan]
    return None if layout_of(named) in layouts else layouts[0]


def fit_methods(
    packed: PackedModel,
    windows: Windows,
    methods: Sequence[Method],
    *,
    threads: int,
    progress: Progress = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> dict[str, list[LayerFit]]:
    """What each method makes of every layer of a model that reads `windows`."""
    names = [method.name for method in methods]
    fits: dict[str, list[LayerFit]] = {name: [] for name in names}

    def begun(residual: Floats) -> int:
        fits.update(fits_from(checkpoint.load("layers"), names, residual))
        return min(map(len, fits.values()), default=0)

    def halfway(residual: Floats) -> None:
        checkpoint.offer("layers", lambda: fits_to(fits, residual))

    def visit(statistics: LayerStatistics, sample: Floats) -> None:
        view = LayerView(statistics, LayerWeights(packed, statistics.layer), sample, threads)
        for method in methods:
            fits[method.name].append(method.fit(view))

    observe(
        packed, windows, visit,
        threads=threads, progress=progress, begun=begun, halfway=halfway,
    )  # fmt: skip
    return fits


def _needs(
    model: str,
    named: PackedFolder | None,
    methods: Iterable[AnyMethod],
    context: CallContext,
    *,
    explicit: bool = True,
) -> dict[str, Sequence[str]]:
    """Plan name -> the layouts that serve it, methods of whole models in front: these choose.

    Then those that fewer layouts serve, whose packs may do for the others.

    Raises:
        OptionError: a method that is asked for `explicit`ly cannot serve the model.
    """
    if named is not None:
        config = named.config
    else:
        with open_any(model, context) as source:
            config = source.config
    of_models = {
        each.name: _possible(each.layouts(config), config)
        for each in methods
        if isinstance(each, ModelMethod)
    }
    of_layers: dict[str, Sequence[str]] = {}
    by_layer = [each for each in methods if isinstance(each, Method)]
    for each in sorted(by_layer, key=lambda each: len(SERVED_BY[each.layout])):
        reason = None if each.unsuited is None else each.unsuited(config)
        possible = _possible(SERVED_BY[each.layout], config)
        if reason is None and not possible:
            reason = (
                f"Plan {each.name} needs up and down stored together, which this model's biases or "
                "LoRA adapter rule out; calibrate with another of --methods."
            )
        if reason is None:
            of_layers[each.name] = possible
        elif explicit:
            raise OptionError(reason)
    return of_models | of_layers


def _possible(layouts: Sequence[str], config: ModelConfig) -> list[str]:
    """The layouts that a model can be stored in."""
    return [each for each in layouts if config.bundles or each not in BUNDLED]


def _windows(packed: PackedModel, documents: Iterable[str], tokens: int) -> Windows:
    config = packed.config
    window = min(WINDOW, config.max_position_embeddings)
    tokenizer = Tokenizer.from_folder(packed.path)
    tokenizer.demand_rows(config.vocab_size)
    return token_windows(tokenizer, config.eos_token_ids, documents, tokens, window)


def _specs(folder: PackedFolder) -> dict[str, Any]:
    """How each matrix and bundle of a packed folder is stored."""
    stored = {name: each.spec for name, each in folder.tensors.items()}
    return {name: spec for name, spec in stored.items() if hasattr(spec, "nbytes")}


def _notes(windows: Windows, texts: Sequence[str]) -> dict[str, Any]:
    return {
        "text": list(texts) or "help texts of Python (pydoc_data.topics)",
        "tokens": int(windows.size),
        "window": int(windows.shape[1]),
        "tokens_sha256": hashlib.sha256(windows.astype("<i8").tobytes()).hexdigest(),
    }
