"""Decoder: the Llama decoder (Touvron et al., 2023), from token ids to logits.

`Decoder.forward` is the whole of it and reads top down as the paper does. It is written in
`Operations` and traced: called once per shape, it is recorded into a program that is replayed for
every token after that, so nothing here runs per token. It neither knows how a matrix is stored nor
what carries an operation out, nor which channels a plan skips (`BoundLayer` does). Prompts,
sequences and batches of sequences are one forward pass: only attention tells sequences apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparity_edge.arrays import Floats, padded
from sparity_edge.kernels.machines import Machine
from sparity_edge.kernels.operations import Bundle, HeadNorm, Operations
from sparity_edge.kernels.sparse_vector import SparseVector
from sparity_edge.model.applied_plan import ATTENTION, FFN, AppliedPlan, Reader
from sparity_edge.model.bound_layer import BoundLayer, SparsityRecord
from sparity_edge.model.buffers import Buffers
from sparity_edge.model.kv_cache import KVCache
from sparity_edge.model.layer import load_layer, matrix, vector
from sparity_edge.model.rotary import RopeTables
from sparity_edge.model.screened_head import ScreenedHead
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.plan import NEURONS

QKV = ("q_proj", "k_proj", "v_proj")


class Decoder:
    """The weights of a model and what is done with them.

    Args:
        packed: the weights, as `open_packed` gives them.
        machine: what will carry out the operations.
    """

    def __init__(self, packed: PackedModel, machine: Machine) -> None:
        self.config = config = packed.config
        self.epsilon = config.rms_norm_eps
        self.embed_tokens = machine.matrix(matrix(packed, "model.embed_tokens.weight"))
        layers = range(config.num_hidden_layers)
        self.layers = [load_layer(packed, layer, machine) for layer in layers]
        # What the head's input is multiplied by is folded into its norm.
        self.norm = padded(vector(packed, "model.norm.weight") * np.float32(config.scales.head))
        self.lm_head = self.embed_tokens
        if not config.tie_word_embeddings:
            self.lm_head = machine.matrix(matrix(packed, "lm_head.weight"))
        self.rope = RopeTables(config)

    @property
    def biases(self) -> list[dict[str, Floats | None]]:
        """Of the linears, by layer and name; None where there is none."""
        linears = [layer.linears.items() for layer in self.layers]
        return [{name: each.bias for name, each in layer} for layer in linears]

    def forward(
        self,
        ops: Operations,
        this: Buffers,
        caches: Sequence[KVCache],
        plan: AppliedPlan | None = None,
        screened: ScreenedHead | None = None,
    ) -> Reader | None:
        """From the ids of a pass to the logits of its last rows; where none get them, to h of all.

        Args:
            ops: records or computes what is called.
            this: the arrays of the pass.
            caches: the KV cache of each of its sequences.
            plan: which channels are skipped; None: none.
            screened: computes the logits of a single token; None: all of them are computed.

        Returns:
            What counts the bytes that the pass reads; None without a plan.
        """
        record = SparsityRecord(ops, this, plan)
        self.embed(ops, this)
        for weights in self.layers:
            layer = BoundLayer(ops, weights, record)
            if weights.adapter is not None:
                self.change_basis(layer, this)
                this.exchange()
            self.attention(layer, this, caches)
            self.ffn(layer, this)
        reader = record.tally()
        if not len(this.logits):
            ops.rmsnorm(this.x, self.norm, self.epsilon, this.h)
            return reader
        last = slice(len(this.x) - len(this.logits), None)
        ops.rmsnorm(this.x[last], self.norm, self.epsilon, this.h[last])
        if screened is None:
            ops.linear(this.h[last], self.lm_head, this.logits)
        else:
            screened.forward(ops, this.h[last], self.lm_head, this.logits)
        return reader

    def embed(self, ops: Operations, this: Buffers) -> None:
        """x = the rows of the embedding that a pass names."""
        ops.embed(this.ids, self.embed_tokens, this.x)
        if self.config.scales.embedding != 1:
            ops.scale(this.x, self.config.scales.embedding, this.x)

    def change_basis(self, layer: BoundLayer, this: Buffers) -> None:
        """Before a layer that has a residual adapter: h = adapter(x), x in the layer's basis."""
        layer.ops.linear(this.x, layer.weights.adapter, this.h)

    def attention(self, layer: BoundLayer, this: Buffers, caches: Sequence[KVCache]) -> None:
        """The first half of a layer: x += o_proj(attention(norm(x))), or x += norm(o_proj ...)."""
        ops, weights = layer.ops, layer.weights
        h = self._read(ops, this, weights.norms.before_attention)
        layer.gains(ATTENTION, h)
        with ops.together():
            inputs = [layer.sparsify(name, h) for name in QKV]
        with ops.together():
            for name, x, out in zip(QKV, inputs, (this.q, this.k, this.v), strict=True):
                layer.linear(name, x, out)
        layer.adapt(q_proj=this.q, k_proj=this.k, v_proj=this.v)
        sequences = tuple(zip(this.sequences, caches, strict=True))
        heads, norms = self.config.num_attention_heads, self._qk_norms(layer, this)
        with ops.together():
            for own, cache in sequences:
                keys, values = cache.layer(weights.index)
                table = self.rope.of_queries(weights.index, cache.stretch)
                ops.rope(own.q, table, own.position, heads, own.q, norms[0])
                table = self.rope.of_keys(weights.index, cache.stretch)
                ops.append(own.k, own.v, table, own.position, keys, values, norms[1])
        with ops.together():
            for own, cache in sequences:
                keys, values = cache.layer(weights.index)
                ops.attention(own.q, keys, values, own.position, weights.window, own.mixed)
        mixed = layer.sparsify("o_proj", this.mixed)
        self._add(layer, this, "o_proj", mixed, weights.norms.after_attention)

    def ffn(self, layer: BoundLayer, this: Buffers) -> None:
        """The second half: x += down_proj(act(gate_proj(h)) * up_proj(h)), or the norm of that."""
        ops, weights = layer.ops, layer.weights
        h = self._read(ops, this, weights.norms.before_ffn)
        layer.gains(FFN, h)
        if weights.bundle is not None:
            self._ffn_of_neurons(layer, this, h, weights.bundle)
            return
        with ops.together():
            inputs = [layer.sparsify(name, h) for name in ("gate_proj", "up_proj")]
        with ops.together():
            layer.linear("gate_proj", inputs[0], this.gate)
            layer.linear("up_proj", inputs[1], this.up)
        layer.adapt(gate_proj=this.gate, up_proj=this.up)
        if self.config.activation.zeroes:
            self._activate(ops, this.gate)
            if self.config.activation.up:
                ops.relu(this.up, 0.0, this.up)
            ops.multiply(this.gate, this.up, this.middle)
        else:
            ops.silu_mul(this.gate, this.up, this.middle)
        middle = layer.sparsify("down_proj", this.middle)
        self._add(layer, this, "down_proj", middle, weights.norms.after_ffn)

    def _read(self, ops: Operations, this: Buffers, norm: Floats | None) -> Floats:
        """What half of a layer reads: the residual stream, normed into h if there is a norm."""
        if norm is None:
            return this.x
        ops.rmsnorm(this.x, norm, self.epsilon, this.h)
        return this.h

    def _add(
        self,
        layer: BoundLayer,
        this: Buffers,
        name: str,
        inputs: Floats | SparseVector,
        norm: Floats | None,
    ) -> None:
        """x += what the last linear of half a layer gives, normed if there is a norm."""
        out = this.x if norm is None else this.added
        with layer.beside_adapter(name):
            layer.linear(name, inputs, out, accumulate=norm is None)
        layer.adapt(**{name: out})
        if norm is not None:
            layer.ops.rmsnorm(out, norm, self.epsilon, this.x, accumulate=True)

    def _ffn_of_neurons(self, layer: BoundLayer, this: Buffers, h: Floats, bundle: Bundle) -> None:
        """The FFN of a layer whose gates decide which neurons count.

        Centred gates leave out (g - c) u of the others, and c u of all is the folded matrix.
        """
        ops, gate, norm = layer.ops, this.gate, layer.weights.norms.after_ffn
        out = this.x if norm is None else this.added
        inputs = layer.sparsify("gate_proj", h)
        with layer.beside_adapter("gate_proj"):
            layer.linear("gate_proj", inputs, gate)
        layer.adapt(gate_proj=gate)
        self._activate(ops, gate)
        with ops.together():  # one thread selects while the others begin with the folded matrix
            active = layer.sparsify(NEURONS, gate)
            if layer.folded is not None:
                ops.linear(h, layer.folded, out, accumulate=norm is None)
        relu_up, begun = self.config.activation.up, norm is None or layer.folded is not None
        ops.neurons(h, active, bundle, this.up, this.middle, out, relu_up, accumulate=begun)
        if norm is not None:
            ops.rmsnorm(out, norm, self.epsilon, this.x, accumulate=True)

    def _activate(self, ops: Operations, gate: Floats) -> None:
        """Gates through the activation."""
        activation = self.config.activation
        if activation.zeroes:
            ops.relu(gate, activation.threshold, gate)
        else:
            ops.silu(gate, gate)

    def _qk_norms(self, layer: BoundLayer, this: Buffers) -> list[HeadNorm | None]:
        """The norms of q and k over each head (Qwen3), for `rope`; over all of them: done here."""
        norms = (layer.weights.q_norm, layer.weights.k_norm)
        if self.config.qk_norm == "all":
            with layer.ops.together():
                for x, norm in zip((this.q, this.k), norms, strict=True):
                    if norm is not None:
                        layer.ops.rmsnorm(x, norm, self.epsilon, x)
            return [None, None]
        return [None if each is None else HeadNorm(each, self.epsilon) for each in norms]
