"""Decoder: the Llama decoder (Touvron et al., 2023), from token ids to logits.

`Decoder.forward` is the whole of it and reads top down as the paper does. It is written in
`Operations`, so it neither knows how a matrix is stored nor what carries an operation out. Prompts,
answers and batches of answers are the same forward pass: only attention tells sequences apart.
"""

from __future__ import annotations

from sparity_edge.arrays import Floats
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.kernels.operations import Bundle, Machine, Operations
from sparity_edge.kernels.sparse_vector import SparseVector
from sparity_edge.model.applied_plan import ATTENTION, FFN
from sparity_edge.model.forward_pass import Pass
from sparity_edge.model.layer import load_block, matrix, vector
from sparity_edge.model.rotary import rotary_table
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.plan import NEURONS

QKV = ("q_proj", "k_proj", "v_proj")


class Decoder:
    """The weights of a model and what is done with them.

    Args:
        packed: the weights, as `open_packed` gives them.
        config: what they are for.
        machine: what will carry out the operations.
    """

    def __init__(self, packed: PackedModel, config: ModelConfig, machine: Machine) -> None:
        self.config = config
        self.table = rotary_table(config, 0)  # (positions, head_dim)
        self.embed_tokens = machine.matrix(matrix(packed, "model.embed_tokens.weight"))
        layers = range(config.num_hidden_layers)
        self.blocks = [load_block(packed, config, layer, machine) for layer in layers]
        self._norm = vector(packed, "model.norm.weight")
        self.lm_head = self.embed_tokens
        if not config.tie_word_embeddings:
            self.lm_head = machine.matrix(matrix(packed, "lm_head.weight"))

    def cover(self, positions: int) -> None:
        """Have a rotary table for so many positions; passes prepared before keep theirs."""
        if len(self.table) < positions:
            self.table = rotary_table(self.config, positions)

    def forward(self, ops: Operations, this: Pass) -> None:
        """From the ids of a pass to its logits."""
        this.forget()
        ops.embed(this.ids, self.embed_tokens, this.x)
        for layer in range(len(self.blocks)):
            self.attention(ops, layer, this)
            self.ffn(ops, layer, this)
        self._tally(ops, this)
        last = slice(len(this.x) - len(this.logits), None)
        ops.rmsnorm(this.x[last], self._norm, self.config.rms_norm_eps, this.h[last])
        ops.linear(this.h[last], self.lm_head, this.logits)

    def attention(self, ops: Operations, layer: int, this: Pass) -> None:
        """The first half of a block: x += o_proj(attention(norm(x)))."""
        block, h = self.blocks[layer], this.h
        ops.rmsnorm(this.x, block.input_layernorm, self.config.rms_norm_eps, h)
        self._gain(ops, this, layer, ATTENTION)
        with ops.together():
            inputs = [self._sparsify(ops, this, layer, name, h) for name in QKV]
        with ops.together():
            for name, x, out in zip(QKV, inputs, (this.q, this.k, this.v), strict=True):
                self._linear(ops, this, layer, name, x, out)
        with ops.together():
            for q, k, v, _, position, cache in this.sequences():
                ops.rope(q, self.table, position, self.config.num_attention_heads, q)
                ops.append(k, v, self.table, position, *cache.layer(layer))
        with ops.together():
            for q, _, _, mixed, position, cache in this.sequences():
                ops.attention(q, *cache.layer(layer), position, block.window, mixed)
        x = self._sparsify(ops, this, layer, "o_proj", this.mixed)
        self._linear(ops, this, layer, "o_proj", x, this.x, accumulate=True)

    def ffn(self, ops: Operations, layer: int, this: Pass) -> None:
        """The second half of a block: x += down_proj(silu(gate_proj(h)) * up_proj(h))."""
        block, h, gate = self.blocks[layer], this.h, this.gate
        ops.rmsnorm(this.x, block.post_attention_layernorm, self.config.rms_norm_eps, h)
        self._gain(ops, this, layer, FFN)
        if block.bundle is not None:
            self._ffn_of_neurons(ops, layer, this, block.bundle)
            return
        with ops.together():
            inputs = [
                self._sparsify(ops, this, layer, name, h) for name in ("gate_proj", "up_proj")
            ]
        with ops.together():
            self._linear(ops, this, layer, "gate_proj", inputs[0], gate)
            self._linear(ops, this, layer, "up_proj", inputs[1], this.up)
        ops.silu_mul(gate, this.up, this.middle)
        middle = self._sparsify(ops, this, layer, "down_proj", this.middle)
        self._linear(ops, this, layer, "down_proj", middle, this.x, accumulate=True)

    def _ffn_of_neurons(self, ops: Operations, layer: int, this: Pass, bundle: Bundle) -> None:
        """The same where gates decide which neurons count.

        Centred gates leave out (g - c) u of the others, and c u of all is the folded matrix.
        """
        h, gate = this.h, this.gate
        x = self._sparsify(ops, this, layer, "gate_proj", h)
        self._linear(ops, this, layer, "gate_proj", x, gate)
        ops.silu(gate, gate)
        with ops.together():  # one thread selects while the others begin with the folded matrix
            active = self._sparsify(ops, this, layer, NEURONS, gate)
            if this.plan is not None and (mean := this.plan.means[layer]) is not None:
                ops.linear(h, mean, this.x, accumulate=True)
        ops.neurons(h, active, bundle, this.up, this.middle, this.x)

    def _linear(
        self,
        ops: Operations,
        this: Pass,
        layer: int,
        name: str,
        x: Floats | SparseVector,
        out: Floats,
        accumulate: bool = False,
    ) -> None:
        linear = self.blocks[layer].linears[name]
        bias = linear.bias if this.plan is None else this.plan.bias(layer, name)
        ops.linear(x, linear.matrix, out, bias, accumulate)

    def _gain(self, ops: Operations, this: Pass, layer: int, half: int) -> None:
        """The exponents of the plan's gains in half a layer, of its normalised input."""
        gains = None if this.plan is None else this.plan.gains(layer, half)
        if gains is not None:
            offsets = gains[1]
            ops.linear(this.h, gains[0], this.exponents[:, : len(offsets)], offsets)

    def _sparsify(
        self, ops: Operations, this: Pass, layer: int, piece: str, x: Floats
    ) -> Floats | SparseVector:
        """What the plan leaves of x; pieces that choose alike share the result."""
        selector = None if this.plan is None else this.plan.selector(layer, piece)
        if selector is None:
            return x
        if id(selector) not in this.vectors:
            column = selector.column
            exponents = None if column is None else this.exponents[:, column : column + 1]
            this.vectors[id(selector)] = ops.sparsify(x, selector, exponents)
        this.used.append((layer, piece))
        this.active.append(this.vectors[id(selector)])
        return this.vectors[id(selector)]

    def _tally(self, ops: Operations, this: Pass) -> None:
        """Have the pass count its active channels at its end."""
        if this.plan is not None:
            this.reader = this.plan.reader(this.used, this.active)
            ops.tally(this.reader.vectors, this.reader.tallies)
