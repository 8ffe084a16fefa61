"""The dense model over calibration text, and the statistics of each layer shown in turn.

A layer's statistics are dropped before the next layer's are collected. Knows no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from converters.calibration.statistics import Collector, LayerStatistics
from converters.calibration.windows import Windows
from sparity_edge.arrays import Floats
from sparity_edge.model.kv_cache import default_kv_dtype
from sparity_edge.model.layer_run import LayerRun
from sparity_edge.model.model import Model
from sparity_edge.packed.folder import PackedModel
from sparity_edge.progress import Progress, silent

SAMPLE = 512  # tokens of the last window that a method may run a layer on


@contextmanager
def dense_model(
    packed: PackedModel, window: int, threads: int, progress: Progress
) -> Iterator[Model]:
    """The model, compiled, with room for a window of so many tokens; no plan applies."""
    from sparity_edge.kernels.program.machine import ThreadedMachine

    machine = ThreadedMachine(threads)
    try:
        model = Model(packed, machine, window, default_kv_dtype(packed))
        model.compile(progress)
        yield model
    finally:
        machine.close()


def observe(
    packed: PackedModel,
    windows: Windows,
    visit: Callable[[LayerStatistics, Floats], None],
    *,
    threads: int,
    progress: Progress = silent,
    begun: Callable[[Floats], int] = lambda _: 0,
    halfway: Callable[[Floats], None] = lambda _: None,
) -> None:
    """Run the dense model over `windows` and show the statistics of each layer in turn.

    Args:
        packed: the model.
        windows: token ids (windows, tokens).
        visit: given a layer's statistics, and its input (tokens, hidden) at the beginning of the
            last window.
        threads: how many compute; the statistics do not depend on it.
        progress: told of chunks of text.
        begun: puts the residual stream of a former run into the array that it is given, and says
            how many layers that run has come through.
        halfway: given the residual stream behind each layer that has been shown.
    """
    with (
        dense_model(packed, windows.shape[1], threads, progress) as model,
        LayerRun(model, windows) as layers,
        ThreadPoolExecutor(threads) as pool,
    ):
        total = layers.layers * layers.chunks
        for layer in range(begun(layers.residual), layers.layers):
            collector = Collector(layer, pool, threads)
            count = iter(range(layer * layers.chunks, total))

            def show(vectors: Any, collector: Any = collector, count: Any = count) -> None:
                collector(vectors)
                progress("calibrate", next(count), total)

            sample = layers.residual[-1, :SAMPLE].copy()
            layers.run(layer, show)
            visit(collector.result(), sample)
            halfway(layers.residual)
        progress("calibrate", total, total)
