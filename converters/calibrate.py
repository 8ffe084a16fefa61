"""Calibration: text through the dense model, and out come sparsity plans stored beside the weights.

One pass over the text serves every method: a layer's statistics are collected, each method fits the
layer, and the statistics are dropped before the next one. Memory: the residual stream of all tokens
(1.1 GB for 65,536 tokens at hidden size 4096) and the statistics of one layer (0.5 GB for 14,336
neurons) beside the weights. The same text gives the same plans, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.calibration.layer_weights import BlockWeights
from converters.calibration.statistics import Collector, LayerStatistics
from converters.calibration.windows import WINDOW, Windows, read_documents, token_windows
from converters.homes import find_homes, layout_of
from converters.methods import chosen_methods
from converters.methods.family import SERVED_BY, LayerFit, LayerView, Method, assemble
from converters.pack import PackOptions
from converters.store import open_any, prepare
from sparity_edge.arrays import Floats
from sparity_edge.choices import DEFAULT_PLAN
from sparity_edge.model.kv_cache import default_kv_dtype
from sparity_edge.model.layer_run import LayerRun
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_folder
from sparity_edge.packed.folder import PackedFolder, PackedModel, read_weights
from sparity_edge.plans.plan import PlanFamily
from sparity_edge.plans.plan_file import add_plan, fingerprint
from sparity_edge.progress import Progress, silent
from sparity_edge.system.threads import checked_threads
from sparity_edge.text.default_text import default_documents
from sparity_edge.text.tokenizer import Tokenizer

DEFAULT_TOKENS = 65536
SAMPLE = 512  # tokens of the last window that a method may run a block on
# Of the FFN's weights: centred gates with a larger folded matrix save too little to be the default.
# Measured: at 0.125 (SmolLM2) thresholds on inputs are better, at 0.057 (Qwen 1.5B) centred gates.
MOST_FOLDED = 0.1


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
    methods: Sequence[str | Method] = ("all",),
    layout: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    offline: bool = False,
    progress: Progress = silent,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Calibrated]:
    """Calibrate a model and store the plans in its packed folder.

    Args:
        model: as for `Generator.load`. What is no packed folder is packed into the cache, in each
            layout that one of the methods needs.
        texts: UTF-8 files, or .jsonl with one {"text": ...} a line; none: the help of Python.
        tokens: how many of them to read, at least 4 windows of 1024.
        methods: names of `converters.methods.METHODS`, "auto", "all", or methods of your own
            (docs/adding-a-method.md).
        layout: store all plans in the pack of this layout; None: each in the layout it needs.
        dtype: as for `Generator.load`.
        threads: how many compute.
        offline, progress, notify: as for `Generator.load`.

    Raises:
        OptionError: an argument cannot be honoured, or the text is too short.
        SourceError, ConfigError, FormatError: the model cannot be found, read or run.
    """
    threads = checked_threads(threads)
    chosen = chosen_methods(methods)

    def pack(wanted: str) -> PackedFolder:
        options = PackOptions(dtype=dtype, layout=wanted)
        return open_folder(
            prepare(model, options, offline=offline, progress=progress, notify=notify)
        )

    needs = _needs(model, chosen, methods, offline=offline)
    homes = find_homes(model, needs, layout, pack, explicit="all" not in methods)
    folder = next(iter(homes.values()))
    packed = read_weights(folder)
    documents = read_documents(texts) if texts else default_documents()
    windows = _windows(packed, documents, tokens)
    notes = _notes(windows, [Path(text).name for text in texts])
    stored = []

    def store(home: PackedFolder, family: PlanFamily) -> None:
        add_plan(home, family)
        stored.append(Calibrated(home.path, family))

    fitted = [method for method in chosen if method.name in homes]
    if fitted:
        fits = fit_methods(packed, windows, fitted, threads=threads, progress=progress)
        for method in fitted:
            home = homes[method.name]
            family = assemble(method, fits[method.name], _specs(home), fingerprint(packed), notes)
            store(home, family)
    if DEFAULT_PLAN in homes:
        home = homes[DEFAULT_PLAN]
        store(home, _auto(home, windows, notes, threads, progress))
    return stored


def fit_methods(
    packed: PackedModel,
    windows: Windows,
    methods: Sequence[Method],
    *,
    threads: int,
    progress: Progress = silent,
) -> dict[str, list[LayerFit]]:
    """What each method makes of every layer of a model that reads `windows`."""
    fits: dict[str, list[LayerFit]] = {method.name: [] for method in methods}

    def visit(statistics: LayerStatistics, sample: Floats) -> None:
        view = LayerView(statistics, BlockWeights(packed, statistics.layer), sample)
        for method in methods:
            fits[method.name].append(method.fit(view))

    observe(packed, windows, visit, threads=threads, progress=progress)
    return fits


def observe(
    packed: PackedModel,
    windows: Windows,
    visit: Callable[[LayerStatistics, Floats], None],
    *,
    threads: int,
    progress: Progress = silent,
) -> None:
    """Run the dense model over `windows` and show the statistics of each layer in turn.

    Args:
        packed: the model.
        windows: token ids (windows, tokens).
        visit: given a layer's statistics, and its input (tokens, hidden) at the beginning of the
            last window.
        threads: how many compute; the statistics do not depend on it.
        progress: told of chunks of text.
    """
    from sparity_edge.kernels.program.machine import ThreadedMachine

    machine = ThreadedMachine(threads)
    try:
        model = Model(packed, machine, windows.shape[1], default_kv_dtype(packed))
        model.compile(progress)
        with LayerRun(model, windows) as layers, ThreadPoolExecutor(threads) as pool:
            total = layers.layers * layers.chunks
            for layer in range(layers.layers):
                collector = Collector(layer, pool, threads)
                count = iter(range(layer * layers.chunks, total))

                def show(vectors: Any, collector: Any = collector, count: Any = count) -> None:
                    collector(vectors)
                    progress("calibrate", next(count), total)

                sample = layers.residual[-1, :SAMPLE].copy()
                layers.run(layer, show)
                visit(collector.result(), sample)
            progress("calibrate", total, total)
    finally:
        machine.close()


def _needs(
    model: str, methods: Iterable[Method], wanted: Sequence[str | Method], *, offline: bool
) -> dict[str, Sequence[str]]:
    """Plan name -> the layouts that serve it."""
    needs: dict[str, Sequence[str]] = {}
    if set(wanted) & {DEFAULT_PLAN, "all"}:
        with open_any(model, offline=offline) as source:
            config = source.config
        share = config.hidden_size / (3 * config.intermediate_size)
        best = ("mixed", "input") if share < MOST_FOLDED else ("input", "mixed")
        needs[DEFAULT_PLAN] = best
    return needs | {method.name: SERVED_BY[method.layout] for method in methods}


def _auto(
    home: PackedFolder,
    windows: Windows,
    notes: Mapping[str, Any],
    threads: int,
    progress: Progress,
) -> PlanFamily:
    """The default plan, whose budget is spread over all pieces."""
    from converters.methods import auto

    return auto.make(
        read_weights(home),
        windows,
        layout_of(home),
        threads=threads,
        notes=notes,
        progress=progress,
    )


def _windows(packed: PackedModel, documents: Iterable[str], tokens: int) -> Windows:
    config = packed.config
    window = min(WINDOW, config.max_position_embeddings)
    tokenizer = Tokenizer.from_folder(packed.path)
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
