"""Model: the Llama decoder (Touvron et al., 2023), from token ids to logits.

`Model._forward` is the whole of it and reads top down as the paper does. It is written in
`Operations`, so it neither knows how a matrix is stored nor what carries an operation out. Prompts
are read in chunks, answers token by token; both are the same forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sparity_edge.applied_plan import (
    ATTENTION,
    FFN,
    MOST_GAINS,
    AppliedPlan,
    Reader,
    block_bytes,
)
from sparity_edge.block import load_block, matrix, vector
from sparity_edge.bundle import PackedBundle
from sparity_edge.cache import Cache
from sparity_edge.config import ModelConfig
from sparity_edge.format import PackedModel
from sparity_edge.kernels.buffers import Floats, rows
from sparity_edge.kernels.operations import Bundle, Machine, Operations
from sparity_edge.kernels.thinned import Thinned
from sparity_edge.layout import PackedMatrix
from sparity_edge.plan import NEURONS, SparsityPlan
from sparity_edge.progress import Progress
from sparity_edge.rotary import rotary_table

CHUNK = 256  # tokens of a prompt read at once: enough to use each unpacked weight many times
# Attention sinks: what stands here is looked at by all later tokens, so it is never thinned.
DENSE_POSITIONS = 4
QKV = ("q_proj", "k_proj", "v_proj")


class _Pass:
    """The arrays of a forward pass over a fixed number of tokens."""

    def __init__(
        self, config: ModelConfig, tokens: int, outputs: int, plan: AppliedPlan | None = None
    ) -> None:
        heads = config.num_attention_heads * config.head_dim
        kv_heads = config.num_key_value_heads * config.head_dim
        self.plan = plan
        self.ids = np.zeros(tokens, dtype=np.int64)
        self.position = np.zeros(1, dtype=np.int64)  # of the first token
        self.x = rows(tokens, config.hidden_size)  # the residual stream
        self.h = rows(tokens, config.hidden_size)  # its normalised copy
        self.q = rows(tokens, heads)
        self.k = rows(tokens, kv_heads)
        self.v = rows(tokens, kv_heads)
        self.mixed = rows(tokens, heads)  # what attention gives
        self.gate = rows(tokens, config.intermediate_size)
        self.up = rows(tokens, config.intermediate_size)
        self.middle = self.up  # what goes into down_proj, in the place of one of its factors
        self.exponents = rows(tokens, MOST_GAINS)  # of the gains of one half of a layer
        self.logits = rows(outputs, config.vocab_size)  # of the last `outputs` tokens
        self.run: Callable[[bool], None] = lambda _: None
        self.capacity = 0  # of the cache that `run` was prepared for
        self.forget()

    def forget(self) -> None:
        """Before another forward pass: what the plan thinned, and for which pieces."""
        self.thinned: dict[int, Thinned] = {}
        self.used: list[tuple[int, str]] = []
        self.active: list[Thinned] = []
        self.reader: Reader | None = None


class Model:
    """A decoder with its weights and one key-value cache.

    Args:
        packed: the weights, as `open_packed` gives them.
        machine: what carries out the operations.
        max_context: the most positions of the cache.
        cache_dtype: "f32", "bf16" or "int8".
    """

    def __init__(
        self, packed: PackedModel, machine: Machine, max_context: int, cache_dtype: str = "f32"
    ) -> None:
        self.config = ModelConfig.from_dict(packed.config, packed.generation_config)
        self.cache = Cache(self.config, max_context, cache_dtype)
        self._machine = machine
        self._table = rotary_table(self.config, self.cache.capacity)
        self._embed_tokens = machine.matrix(matrix(packed, "model.embed_tokens.weight"))
        layers = range(self.config.num_hidden_layers)
        self._blocks = [load_block(packed, self.config, layer, machine) for layer in layers]
        self._norm = vector(packed, "model.norm.weight")
        self._lm_head = self._embed_tokens
        if not self.config.tie_word_embeddings:
            self._lm_head = machine.matrix(matrix(packed, "lm_head.weight"))
        self._packed = packed
        self._plan: AppliedPlan | None = None
        self._decode = _Pass(self.config, 1, 1)
        self._sparse_decode = self._decode
        self._latest = self._decode

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self._machine.threads

    @property
    def parameters(self) -> int:
        """Numbers in all matrices."""
        return sum(
            math.prod(shape) for shape in self.config.tensor_shapes().values() if len(shape) == 2
        )

    @property
    def dtypes(self) -> list[str]:
        """The number formats of the matrices, sorted."""
        found = set()
        for each in self._packed.tensors.values():
            if isinstance(each, PackedMatrix):
                found.add(each.layout.dtype)
            elif isinstance(each, PackedBundle):
                found |= {each.layout.up.dtype, each.layout.down.dtype}
        return sorted(found)

    @property
    def block_bytes(self) -> int:
        """Bytes of all decoder-block weights."""
        return block_bytes(self._packed)

    @property
    def plan(self) -> SparsityPlan | None:
        """What decoding skips."""
        return None if self._plan is None else self._plan.plan

    def set_plan(self, plan: SparsityPlan | None) -> None:
        """Skip what `plan` says from the next token on; None reads everything.

        Raises:
            OptionError: the model's layout does not let it be skipped.
        """
        if plan is None or not any(plan.layers):
            self._plan, self._sparse_decode = None, self._decode
            return
        biases = [
            {name: linear.bias for name, linear in block.linears.items()} for block in self._blocks
        ]
        self._plan = AppliedPlan(plan, self._packed, biases, self._machine)
        self._sparse_decode = _Pass(self.config, 1, 1, self._plan)

    @property
    def active_weight_fraction(self) -> float:
        """Of the latest pass: bytes of decoder-block weights read / all bytes of them."""
        this = self._latest
        if this.plan is None or this.reader is None:
            return 1.0
        return this.reader.bytes_read(len(this.ids)) / this.plan.block_bytes

    @property
    def densities(self) -> dict[str, float]:
        """Of the latest pass: active channels / channels at every site that is thinned."""
        this = self._latest
        return {} if this.reader is None else this.reader.densities(len(this.ids))

    def compile(self, progress: Progress) -> None:
        """Get machine code ready, telling how far it is."""
        self._machine.compile(progress)

    def close(self) -> None:
        """Give threads back."""
        self._machine.close()

    def read(self, ids: Sequence[int], thin: bool = False) -> Floats:
        """Append tokens to the cache.

        Args:
            ids: one or more token ids.
            thin: whether the plan applies, except at the first positions.

        Returns:
            The logits (vocab_size,) after the last of them, valid until the next call.

        Raises:
            ContextError: they do not fit.
        """
        logits = np.empty(0, dtype=np.float32)
        self.cache.reserve(len(self.cache) + len(ids))  # once, not chunk by chunk
        for part, thinned in self._parts(ids, thin):
            logits = self._run(part, 1, thinned)[-1]
        return logits

    def read_all_logits(self, ids: Sequence[int], thin: bool = False) -> Iterator[Floats]:
        """Append tokens and give the logits of every one, (up to CHUNK, vocab_size) at a time."""
        for part, thinned in self._parts(ids, thin):
            yield self._run(part, len(part), thinned)

    def _parts(self, ids: Sequence[int], thin: bool) -> Iterator[tuple[Sequence[int], bool]]:
        """Chunks of `ids`, and whether the plan applies to them."""
        dense = max(0, DENSE_POSITIONS - len(self.cache)) if thin and self._plan else 0
        if dense:
            yield ids[:dense], False
        for start in range(dense, len(ids), CHUNK):
            yield ids[start : start + CHUNK], thin and self._plan is not None

    def _run(self, ids: Sequence[int], outputs: int, thin: bool) -> Floats:
        cache = self.cache
        cache.reserve(len(cache) + len(ids))
        if len(ids) == 1:
            this = self._sparse_decode if thin else self._decode
        else:
            self._latest = self._decode  # lets the arrays of the chunk before go
            this = _Pass(self.config, len(ids), outputs, self._plan if thin else None)
        if this.capacity != cache.capacity:  # the addresses of keys and values have changed
            if len(self._table) < cache.capacity:
                self._table = rotary_table(self.config, cache.capacity)
            this.run = self._machine.prepare(lambda ops: self._forward(ops, this))
            this.capacity = cache.capacity
        this.ids[:] = ids
        this.position[0] = len(cache)
        this.run(len(ids) > 1)
        self._latest = this
        cache.ids.extend(int(token) for token in ids)
        return this.logits

    def _forward(self, ops: Operations, this: _Pass) -> None:
        this.forget()
        ops.embed(this.ids, self._embed_tokens, this.x)
        for layer in range(len(self._blocks)):
            self._attention(ops, layer, this)
            self._ffn(ops, layer, this)
        self._tally(ops, this)
        last = slice(len(this.x) - len(this.logits), None)
        ops.rmsnorm(this.x[last], self._norm, self.config.rms_norm_eps, this.h[last])
        ops.linear(this.h[last], self._lm_head, this.logits)

    def _attention(self, ops: Operations, layer: int, this: _Pass) -> None:
        """The first half of a block: x += o_proj(attention(norm(x)))."""
        config, block = self.config, self._blocks[layer]
        h, q, k, v = this.h, this.q, this.k, this.v
        keys, values = self.cache.layer(layer)
        ops.rmsnorm(this.x, block.input_layernorm, config.rms_norm_eps, h)
        self._gain(ops, this, layer, ATTENTION)
        with ops.together():
            inputs = [self._thin(ops, this, layer, name, h) for name in QKV]
        with ops.together():
            for name, x, out in zip(QKV, inputs, (q, k, v), strict=True):
                self._linear(ops, this, layer, name, x, out)
        with ops.together():
            ops.rope(q, self._table, this.position, config.num_attention_heads, q)
            ops.append(k, v, self._table, this.position, keys, values)
        ops.attention(q, keys, values, this.position, block.window, this.mixed)
        mixed = self._thin(ops, this, layer, "o_proj", this.mixed)
        self._linear(ops, this, layer, "o_proj", mixed, this.x, accumulate=True)

    def _ffn(self, ops: Operations, layer: int, this: _Pass) -> None:
        """The second half of a block: x += down_proj(silu(gate_proj(h)) * up_proj(h))."""
        block, h, gate = self._blocks[layer], this.h, this.gate
        ops.rmsnorm(this.x, block.post_attention_layernorm, self.config.rms_norm_eps, h)
        self._gain(ops, this, layer, FFN)
        if block.bundle is not None:
            self._ffn_of_neurons(ops, layer, this, block.bundle)
            return
        with ops.together():
            inputs = [self._thin(ops, this, layer, name, h) for name in ("gate_proj", "up_proj")]
        with ops.together():
            self._linear(ops, this, layer, "gate_proj", inputs[0], gate)
            self._linear(ops, this, layer, "up_proj", inputs[1], this.up)
        ops.silu_mul(gate, this.up, this.middle)
        middle = self._thin(ops, this, layer, "down_proj", this.middle)
        self._linear(ops, this, layer, "down_proj", middle, this.x, accumulate=True)

    def _ffn_of_neurons(self, ops: Operations, layer: int, this: _Pass, bundle: Bundle) -> None:
        """The same where gates decide which neurons count.

        Centred gates leave out (g - c) u of the others, and c u of all is the folded matrix.
        """
        h, gate = this.h, this.gate
        x = self._thin(ops, this, layer, "gate_proj", h)
        self._linear(ops, this, layer, "gate_proj", x, gate)
        ops.silu(gate, gate)
        with ops.together():  # one thread selects while the others begin with the folded matrix
            active = self._thin(ops, this, layer, NEURONS, gate)
            if this.plan is not None and (mean := this.plan.means[layer]) is not None:
                ops.linear(h, mean, this.x, accumulate=True)
        ops.neurons(h, active, bundle, this.up, this.middle, this.x)

    def _linear(
        self,
        ops: Operations,
        this: _Pass,
        layer: int,
        name: str,
        x: Floats | Thinned,
        out: Floats,
        accumulate: bool = False,
    ) -> None:
        linear = self._blocks[layer].linears[name]
        bias = linear.bias if this.plan is None else this.plan.bias(layer, name)
        ops.linear(x, linear.matrix, out, bias, accumulate)

    def _gain(self, ops: Operations, this: _Pass, layer: int, half: int) -> None:
        """The exponents of the plan's gains in half a layer, of its normalised input."""
        gains = None if this.plan is None else this.plan.gains(layer, half)
        if gains is not None:
            offsets = gains[1]
            ops.linear(this.h, gains[0], this.exponents[:, : len(offsets)], offsets)

    def _thin(
        self, ops: Operations, this: _Pass, layer: int, piece: str, x: Floats
    ) -> Floats | Thinned:
        """What the plan leaves of x; pieces that choose alike share the result."""
        choice = None if this.plan is None else this.plan.choice(layer, piece)
        if choice is None:
            return x
        if id(choice) not in this.thinned:
            column = choice.column
            exponents = None if column is None else this.exponents[:, column : column + 1]
            this.thinned[id(choice)] = ops.thin(x, choice, exponents)
        this.used.append((layer, piece))
        this.active.append(this.thinned[id(choice)])
        return this.thinned[id(choice)]

    def _tally(self, ops: Operations, this: _Pass) -> None:
        """Have the pass count its active channels at its end."""
        if this.plan is not None:
            this.reader = this.plan.reader(this.used, this.active)
            ops.tally(this.reader.thinned, this.reader.tallies)
