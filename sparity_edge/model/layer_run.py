"""LayerRun: the dense model layer by layer over windows of text, its vectors shown to a visitor.

The residual stream of all tokens is kept (tokens x hidden float32: 1.1 GB for 65,536 tokens of a
model of hidden size 4096) and one layer at a time runs over all of it with the model's own kernels,
so that a layer's weights stay in the CPU's cache and what is learned of it can be put away before
the next one. Used by calibration; knows nothing of what the visitor does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Floats
from sparity_edge.kernels.operations import Operations
from sparity_edge.model.bound_layer import BoundLayer, SparsityRecord
from sparity_edge.model.buffers import Buffers
from sparity_edge.model.model import Model
from sparity_edge.model.prefixes.parts import CHUNK

Windows = npt.NDArray[np.int64]  # (windows, tokens of a window)


@dataclass(frozen=True)
class Vectors:
    """What a layer computes for consecutive tokens of one window; valid until the next chunk."""

    window: int
    position: int  # of the first token in its window
    attn_in: Floats  # (tokens, hidden), normalised: what q, k and v read
    attn_out: Floats  # (tokens, heads * head_dim), what o reads
    mlp_in: Floats  # (tokens, hidden), normalised: what gate and up read
    gate: Floats  # (tokens, intermediate), after its activation
    up: Floats  # (tokens, intermediate)
    mlp_mid: Floats  # (tokens, intermediate), what down reads
    residual: Floats  # (tokens, hidden), after the layer


Visitor = Callable[[Vectors], None]
_Replay = Callable[[bool], None]


class LayerRun:
    """The windows on their way through the model; a context manager that empties its KV cache.

    Args:
        model: whose plan is left aside.
        windows: token ids, each row read from a cold start; at most the model's context long.

    Raises:
        ContextError: a window is longer than the model's context.
        OptionError: an id is no row of the embedding.
    """

    def __init__(self, model: Model, windows: Windows) -> None:
        self.model = model
        self.windows = windows
        count, length = windows.shape
        self.residual = np.empty((count, length, model.config.hidden_size), dtype=np.float32)
        model.kv_cache.trim(0)
        model.kv_cache.reserve(length)
        model.kv_cache.stretch = model.decoder.rope.stretch(length)
        model.decoder.rope.cover(model.kv_cache.capacity)
        self._spans = [(at, min(at + CHUNK, length)) for at in range(0, length, CHUNK)]
        sizes = {stop - start for start, stop in self._spans}
        self._buffers = {  # visitors see up as well as its product with the gate
            size: Buffers(model.config, 1, size, 1, keep_up=True) for size in sizes
        }
        self._gate = np.empty((CHUNK, model.config.intermediate_size), dtype=np.float32)
        self._embed()

    def __enter__(self) -> LayerRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.model.kv_cache.trim(0)

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return self.model.config.num_hidden_layers

    @property
    def chunks(self) -> int:
        """How often a visitor is called in a run of one layer."""
        return len(self.windows) * len(self._spans)

    def run(self, layer: int, visit: Visitor | None = None, *, advance: bool = True) -> None:
        """Run one layer over all windows.

        Args:
            layer: the one whose input the residual stream holds: 0 first, then each in turn.
            visit: called with each chunk's vectors, in order; None: nobody looks at them.
            advance: keep the layer's output for the next one; otherwise it can be run again.
        """
        norms = self.model.config.norms
        runs = {size: self._prepare(layer, this) for size, this in self._buffers.items()}
        for window, residual in enumerate(self.residual):
            for start, stop in self._spans:
                this = self._buffers[stop - start]
                this.positions[0] = start
                this.x[:] = residual[start:stop]
                basis, attention, ffn = runs[stop - start]
                if basis is not None:
                    basis(True)
                    this.x[:] = this.h
                attn_in = self._read(attention, norms.before_attention, this)
                mlp_in = self._read(ffn, norms.before_ffn, this)
                if visit is not None:
                    gate = self._activated(layer, this)
                    vectors = (attn_in, this.mixed, mlp_in, gate, this.up, this.middle, this.x)
                    visit(Vectors(window, start, *vectors))
                if advance:
                    residual[start:stop] = this.x

    def _prepare(self, layer: int, this: Buffers) -> tuple[_Replay | None, _Replay, _Replay]:
        model, decoder = self.model, self.model.decoder

        def bound(ops: Operations) -> BoundLayer:
            return BoundLayer(ops, decoder.layers[layer], SparsityRecord(ops, this))

        def basis(ops: Operations) -> None:
            decoder.change_basis(bound(ops), this)

        def attention(ops: Operations) -> None:
            decoder.attention(bound(ops), this, [model.kv_cache])

        def ffn(ops: Operations) -> None:
            decoder.ffn(bound(ops), this)

        adapter = decoder.layers[layer].adapter
        changed = None if adapter is None else model.machine.prepare(basis)
        return changed, model.machine.prepare(attention), model.machine.prepare(ffn)

    def _read(self, half: _Replay, norm: str | None, this: Buffers) -> Floats:
        """Run half of a layer; a copy of what it read, which is the residual stream if not normed.

        A copy, since the other half takes its place.
        """
        stream = this.x.copy() if norm is None else this.x
        half(True)
        return stream if norm is None else this.h.copy()

    def _activated(self, layer: int, this: Buffers) -> Floats:
        """The gates after activation; unless `silu_mul` did it, the buffers hold them already."""
        bundled = self.model.decoder.layers[layer].bundle is not None
        if bundled or self.model.config.activation.zeroes:
            return np.ascontiguousarray(this.gate)
        gate = self._gate[: len(this.gate)]
        # exp of a large number is inf, and the gate then 0; NaN is for the visitor to notice.
        with np.errstate(over="ignore", invalid="ignore"):
            np.exp(-this.gate, out=gate)
            gate += 1
            return np.divide(this.gate, gate, out=gate)

    def _embed(self) -> None:
        model = self.model
        for size, this in self._buffers.items():

            def embed(ops: Operations, this: Buffers = this) -> None:
                model.decoder.embed(ops, this)

            run = model.machine.prepare(embed)
            for window, residual in zip(self.windows, self.residual, strict=True):
                for start, stop in self._spans:
                    if stop - start == size:
                        this.set_ids(window[start:stop])
                        run(True)
                        residual[start:stop] = this.x
