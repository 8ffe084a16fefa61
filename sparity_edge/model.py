"""Model: the Llama decoder (Touvron et al., 2023), from token ids to logits.

`Model._forward` is the whole of it and reads top down as the paper does. It is written in
`Operations`, so it neither knows how a matrix is stored nor what carries an operation out. Prompts
are read in chunks, answers token by token; both are the same forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparity_edge.cache import Cache
from sparity_edge.config import BLOCK_LINEARS, ModelConfig
from sparity_edge.errors import FormatError
from sparity_edge.format import PackedModel
from sparity_edge.kernels.buffers import Floats, padded, rows
from sparity_edge.kernels.operations import Machine, Matrix, Operations
from sparity_edge.layout import PackedMatrix
from sparity_edge.progress import Progress
from sparity_edge.rotary import rotary_table

CHUNK = 256  # tokens of a prompt read at once: enough to use each unpacked weight many times


@dataclass(frozen=True)
class Linear:
    """A matrix and its bias."""

    matrix: Matrix
    bias: Floats | None


@dataclass(frozen=True)
class Block:
    """One decoder block, its parts named as in the checkpoint."""

    input_layernorm: Floats
    q_proj: Linear
    k_proj: Linear
    v_proj: Linear
    o_proj: Linear
    post_attention_layernorm: Floats
    gate_proj: Linear
    up_proj: Linear
    down_proj: Linear
    window: int | None


class _Pass:
    """The arrays of a forward pass over a fixed number of tokens."""

    def __init__(self, config: ModelConfig, tokens: int, outputs: int) -> None:
        heads = config.num_attention_heads * config.head_dim
        kv_heads = config.num_key_value_heads * config.head_dim
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
        self.logits = rows(outputs, config.vocab_size)  # of the last `outputs` tokens
        self.run: Callable[[bool], None] = lambda _: None
        self.capacity = 0  # of the cache that `run` was prepared for


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
        self._embed_tokens = machine.matrix(_matrix(packed, "model.embed_tokens.weight"))
        self._blocks = [
            self._block(packed, layer) for layer in range(self.config.num_hidden_layers)
        ]
        self._norm = _vector(packed, "model.norm.weight")
        self._lm_head = self._embed_tokens
        if not self.config.tie_word_embeddings:
            self._lm_head = machine.matrix(_matrix(packed, "lm_head.weight"))
        self._decode = _Pass(self.config, 1, 1)

        self._weights = [
            tensor for tensor in packed.tensors.values() if isinstance(tensor, PackedMatrix)
        ]
        self._block_bytes = sum(
            tensor.layout.nbytes
            for name, tensor in packed.tensors.items()
            if isinstance(tensor, PackedMatrix) and ".layers." in name
        )
        self._block_bytes_read = 0  # by the latest pass

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self._machine.threads

    @property
    def parameters(self) -> int:
        """Numbers in all matrices."""
        return sum(math.prod(each.layout.shape) for each in self._weights)

    @property
    def dtypes(self) -> list[str]:
        """The number formats of the matrices, sorted."""
        return sorted({each.layout.dtype for each in self._weights})

    @property
    def active_weight_fraction(self) -> float:
        """Of the latest pass: bytes of decoder-block weights read / all bytes of them."""
        return self._block_bytes_read / self._block_bytes

    def compile(self, progress: Progress) -> None:
        """Get machine code ready, telling how far it is."""
        self._machine.compile(progress)

    def close(self) -> None:
        """Give threads back."""
        self._machine.close()

    def read(self, ids: Sequence[int]) -> Floats:
        """Append tokens to the cache.

        Args:
            ids: one or more token ids.

        Returns:
            The logits (vocab_size,) after the last of them, valid until the next call.

        Raises:
            ContextError: they do not fit.
        """
        logits = np.empty(0, dtype=np.float32)
        self.cache.reserve(len(self.cache) + len(ids))  # once, not chunk by chunk
        for start in range(0, len(ids), CHUNK):
            logits = self._run(ids[start : start + CHUNK], 1)[-1]
        return logits

    def read_all_logits(self, ids: Sequence[int]) -> Iterator[Floats]:
        """Append tokens and give the logits of every one, (up to CHUNK, vocab_size) at a time."""
        for start in range(0, len(ids), CHUNK):
            part = ids[start : start + CHUNK]
            yield self._run(part, len(part))

    def _run(self, ids: Sequence[int], outputs: int) -> Floats:
        cache = self.cache
        cache.reserve(len(cache) + len(ids))
        this = self._decode if len(ids) == 1 else _Pass(self.config, len(ids), outputs)
        if this.capacity != cache.capacity:  # the addresses of keys and values have changed
            if len(self._table) < cache.capacity:
                self._table = rotary_table(self.config, cache.capacity)
            this.run = self._machine.prepare(lambda ops: self._forward(ops, this))
            this.capacity = cache.capacity
        this.ids[:] = ids
        this.position[0] = len(cache)
        this.run(len(ids) > 1)
        self._block_bytes_read = self._block_bytes
        cache.ids.extend(int(token) for token in ids)
        return this.logits

    def _forward(self, ops: Operations, this: _Pass) -> None:
        config, epsilon = self.config, self.config.rms_norm_eps
        x, h, q, k, v, gate, up = this.x, this.h, this.q, this.k, this.v, this.gate, this.up
        ops.embed(this.ids, self._embed_tokens, x)
        for layer, block in enumerate(self._blocks):
            keys, values = self.cache.layer(layer)
            ops.rmsnorm(x, block.input_layernorm, epsilon, h)
            with ops.together():
                ops.linear(h, block.q_proj.matrix, q, block.q_proj.bias)
                ops.linear(h, block.k_proj.matrix, k, block.k_proj.bias)
                ops.linear(h, block.v_proj.matrix, v, block.v_proj.bias)
            with ops.together():
                ops.rope(q, self._table, this.position, config.num_attention_heads, q)
                ops.append(k, v, self._table, this.position, keys, values)
            ops.attention(q, keys, values, this.position, block.window, this.mixed)
            ops.linear(this.mixed, block.o_proj.matrix, x, block.o_proj.bias, accumulate=True)

            ops.rmsnorm(x, block.post_attention_layernorm, epsilon, h)
            with ops.together():
                ops.linear(h, block.gate_proj.matrix, gate, block.gate_proj.bias)
                ops.linear(h, block.up_proj.matrix, up, block.up_proj.bias)
            ops.silu_mul(gate, up, gate)
            ops.linear(gate, block.down_proj.matrix, x, block.down_proj.bias, accumulate=True)
        last = slice(len(x) - len(this.logits), None)
        ops.rmsnorm(x[last], self._norm, epsilon, h[last])
        ops.linear(h[last], self._lm_head, this.logits)

    def _block(self, packed: PackedModel, layer: int) -> Block:
        prefix = f"model.layers.{layer}"
        linears = {}
        for name in BLOCK_LINEARS:
            bias = None
            if self.config.has_bias(name):
                bias = _vector(packed, f"{prefix}.{name}.bias")
            matrix = self._machine.matrix(_matrix(packed, f"{prefix}.{name}.weight"))
            linears[name.rpartition(".")[2]] = Linear(matrix, bias)
        return Block(
            input_layernorm=_vector(packed, f"{prefix}.input_layernorm.weight"),
            post_attention_layernorm=_vector(packed, f"{prefix}.post_attention_layernorm.weight"),
            window=self.config.sliding_windows[layer],
            **linears,
        )


def _matrix(packed: PackedModel, name: str) -> PackedMatrix:
    tensor = packed.tensors.get(name)
    if not isinstance(tensor, PackedMatrix):
        raise FormatError(f"{packed.path}: {name} is not a packed matrix; convert the model again.")
    return tensor


def _vector(packed: PackedModel, name: str) -> Floats:
    tensor = packed.tensors.get(name)
    if tensor is None or isinstance(tensor, PackedMatrix):
        raise FormatError(f"{packed.path}: {name} is not a vector; convert the model again.")
    return padded(tensor)
