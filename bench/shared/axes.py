"""KL of quantising floats along the inputs or along the outputs of every matrix, groups of 32.

Input-major rows whose groups run along the outputs carry their scales with them, so that skipping a
row skips its scales. This is what that costs: all matrices of the layers are dequantised, rounded
along one axis or the other, and the model is compared with the one that was not rounded. A source
that comes quantised along its inputs favours that axis, int4 most of all.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from shared.common import say

from converters.numbers.quantize import Quantized, quantize
from converters.pack import convert
from converters.pack_options import PackOptions
from converters.store import open_any
from sparity_edge import Generator
from sparity_edge.logits import kl_divergence, log_normaliser

GROUP = 32
SIDES = (("int8", "inputs"), ("int8", "outputs"), ("int4", "inputs"), ("int4", "outputs"))


class Rounded:
    """A source whose matrices of layers are rounded along an axis, or only dequantised.

    Args:
        source: where the numbers come from.
        side: number format and axis; None leaves the numbers as they are.
    """

    def __init__(self, source: Any, side: tuple[str, str] | None) -> None:
        self._source, self._side = source, side

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def native(self, name: str) -> None:
        """Every matrix comes as floats."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Any:
        """Rows of a tensor as float32."""
        if self._side is None or ".layers." not in name or not name.endswith("_proj.weight"):
            return _floats(self._source.read(name, start, stop))
        dtype, axis = self._side
        if axis == "inputs":
            return quantize(
                _floats(self._source.read(name, start, stop)), dtype, GROUP
            ).dequantize()
        first = start // GROUP * GROUP  # whole groups of outputs, of which some were asked for
        last = None if stop is None else -(-stop // GROUP) * GROUP
        columns = np.ascontiguousarray(_floats(self._source.read(name, first, last)).T)
        rounded = quantize(columns, dtype, GROUP).dequantize().T
        return np.ascontiguousarray(
            rounded[start - first :][: None if stop is None else stop - start]
        )


def _floats(weights: Any) -> Any:
    return weights.dequantize() if isinstance(weights, Quantized) else weights


def logits_of(model: str, side: tuple[str, str] | None, windows: Any, threads: int) -> Any:
    """The logits (positions, vocab_size) of a model that is rounded on one side."""
    with tempfile.TemporaryDirectory() as folder, open_any(model) as source:
        rounded: Any = Rounded(source, side)
        path = convert(rounded, Path(folder) / "pack", PackOptions("f32"))
        with Generator.load(path, threads=threads, notify=say) as generator:
            found = []
            for ids in windows:
                generator.loaded.model.kv_cache.trim(0)
                parts = generator.loaded.model.read_all_logits(ids.tolist())
                found.append(np.concatenate([part.copy() for part in parts]))
            return np.concatenate(found)


def kl_by_axis(model: str, text: str, windows: int, window: int, threads: int) -> Any:
    """KL to the model that is not rounded, by number format and axis, ready for JSON."""
    with Generator.load(model, threads=threads, notify=say) as generator:
        ids = np.array(generator.encode(text))[: windows * window].reshape(windows, window)
    exact = logits_of(model, None, ids, threads)
    normaliser = log_normaliser(exact)
    rows = []
    for dtype, axis in SIDES:
        other = logits_of(model, (dtype, axis), ids, threads)
        kl = float(np.mean(kl_divergence(exact, normaliser, other, log_normaliser(other))))
        say(f"{dtype} along {axis}: KL {kl:.5f}")
        rows.append({"dtype": dtype, "axis": axis, "kl": kl})
    return {"windows": windows, "window": window, "rows": rows}
