"""One decoder layer in NumPy, forward and backward, its weights unpacked to float32.

The backward pass takes the gradient at the layer's output to the input of each of its linears and
of the layer itself; gradients of weights are not formed. Written for clarity: attention is a matrix
of some queries by all keys that they see, for each key head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from converters.calibration.gradient_steps import activated, rmsnorm, rmsnorm_back, rotate
from converters.calibration.layer_weights import LayerWeights, read_vector
from sparity_edge.arrays import Floats
from sparity_edge.config.model_config import LAYER_LINEARS, ModelConfig
from sparity_edge.errors import OptionError
from sparity_edge.model.rotary import RopeTables
from sparity_edge.packed.folder import PackedModel

QUERIES = 128  # positions that attention takes at a time: fewer hidden scores, more calls


@dataclass(frozen=True)
class Slopes:
    """One layer's vectors for one window, and the loss's gradient at the input of each linear.

    The loss is the sum over the window of the negative log-likelihood of the sampled labels.
    """

    inputs: Mapping[str, Floats]  # by site, and `up`: (tokens, channels)
    gradients: Mapping[str, Floats]  # by linear: (tokens, its input channels)


@dataclass(frozen=True)
class _AttentionValues:
    """A layer's vectors for one window up to what attention gives; matrices: (tokens, channels)."""

    attn_in: Floats
    q_out: Floats  # of q_proj
    k_out: Floats
    q: Floats  # (kv heads, queries of a key head, tokens, head_dim), normed and rotated
    k: Floats  # (kv heads, tokens, head_dim), normed and rotated
    v: Floats
    attn_out: Floats


@dataclass(frozen=True)
class _FfnValues:
    """A layer's vectors behind attention, (tokens, channels)."""

    o_out: Floats  # of o_proj
    middle: Floats  # the residual stream between attention and FFN
    mlp_in: Floats
    gate: Floats  # after its activation
    gate_slope: Floats  # the derivative of that
    up: Floats  # after ReLU where up goes through it


class LayerFloats:
    """One decoder layer in float32, forward and backward.

    Args:
        packed: where its weights are.
        config: the model's.
        layer: its number.
        rope: the model's rotary tables, for the longest window.

    Raises:
        OptionError: the layer has steps whose gradient is not written yet.
    """

    def __init__(
        self, packed: PackedModel, config: ModelConfig, layer: int, rope: RopeTables
    ) -> None:
        self.layer = layer
        _refuse_unknown_steps(config)
        self._config = config
        stretch = rope.stretch(rope.positions)
        self._of_queries, self._of_keys = (
            rope.of_queries(layer, stretch),
            rope.of_keys(layer, stretch),
        )
        self._window = config.sliding_windows[layer]
        prefix = f"model.layers.{layer}"
        weights = LayerWeights(packed, layer)
        self._weights = {
            linear: weights.linear(linear)
            for linear in (name.rpartition(".")[2] for name in LAYER_LINEARS)
        }
        self._biases = {
            name.rpartition(".")[2]: read_vector(packed, f"{prefix}.{name}.bias")
            for name in LAYER_LINEARS
            if config.has_bias(name)
        }
        names = {**config.norms._asdict(), **dict(zip("qk", config.qk_norm_sizes, strict=False))}
        self._norms = {
            place: read_vector(packed, f"{prefix}.{name}.weight")
            for place, name in names.items()
            if name is not None
        }

    def forward(self, x: Floats) -> Floats:
        """The layer's output for one window, x (tokens, hidden)."""
        return self._behind_attention(x, self._attention_values(x).attn_out)

    def _behind_attention(self, x: Floats, attn_out: Floats) -> Floats:
        """The layer's output where x (tokens, hidden) and what attention gave are known."""
        found = self._ffn_values(x, attn_out)
        down_out = self._linear("down_proj", found.gate * found.up)
        result: Floats = found.middle + self._normed("after_ffn", down_out)
        return result

    def _attention_values(self, x: Floats) -> _AttentionValues:
        attn_in = self._normed("before_attention", x)
        q_out, k_out, v = (self._linear(name, attn_in) for name in ("q_proj", "k_proj", "v_proj"))
        q, k = self._heads(self._normed("q", q_out)), self._heads(self._normed("k", k_out))
        q, k = self._by_key_head(rotate(q, self._of_queries)), rotate(k, self._of_keys)
        v = self._heads(v)
        attn_out = self._flat(self._attention(q, k, v))
        return _AttentionValues(attn_in, q_out, k_out, q, k, v, attn_out)

    def _ffn_values(self, x: Floats, attn_out: Floats) -> _FfnValues:
        o_out = self._linear("o_proj", attn_out)
        middle = x + self._normed("after_attention", o_out)
        mlp_in = self._normed("before_ffn", middle)
        activation = self._config.activation
        gate, gate_slope = activated(self._linear("gate_proj", mlp_in), activation)
        up = self._linear("up_proj", mlp_in)
        up = np.maximum(up, np.float32(0)) if activation.up else up
        return _FfnValues(o_out, middle, mlp_in, gate, gate_slope, up)

    def through(self, x: Floats, slope: Floats) -> tuple[Slopes, Floats]:
        """Gradients at the layer's linears and at its input x, given the one at its output."""
        seen = self._attention_values(x)
        values = self._ffn_values(x, seen.attn_out)
        into = slope
        if "after_ffn" in self._norms:
            down_out = self._linear("down_proj", values.gate * values.up)
            into = self._normed_back("after_ffn", down_out, slope)
        slopes = {"down_proj": self._back("down_proj", into)}
        product = slopes["down_proj"]
        into_up = product * values.gate
        if self._config.activation.up:
            into_up *= values.up > 0
        slopes["up_proj"] = self._back("up_proj", into_up)
        slopes["gate_proj"] = self._back("gate_proj", product * values.up * values.gate_slope)
        into = slopes["gate_proj"] + slopes["up_proj"]
        slope = slope + self._normed_back("before_ffn", values.middle, into)

        into = self._normed_back("after_attention", values.o_out, slope)
        slopes["o_proj"] = self._back("o_proj", into)
        for name, back in zip(
            ("q_proj", "k_proj", "v_proj"),
            self._attention_back(seen, slopes["o_proj"]),
            strict=True,
        ):
            slopes[name] = self._back(name, back)
        into = slopes["q_proj"] + slopes["k_proj"] + slopes["v_proj"]
        slope = slope + self._normed_back("before_attention", x, into)
        inputs = {
            "attn_in": seen.attn_in,
            "attn_out": seen.attn_out,
            "mlp_in": values.mlp_in,
            "gate": values.gate,
            "up": values.up,
            "mlp_mid": values.gate * values.up,
        }
        return Slopes(inputs, slopes), slope

    def _attention(self, q: Floats, k: Floats, v: Floats) -> Floats:
        """What attention gives, (heads, tokens, head_dim)."""
        mixed = np.empty_like(q)
        for head, part, seen, hidden in self._parts(q):
            shares = self._shares(_rows(q[head, :, part]), k[head, seen], hidden)
            mixed[head, :, part] = (shares @ v[head, seen]).reshape(mixed[head, :, part].shape)
        return mixed.reshape(-1, *q.shape[2:])

    def _attention_back(
        self, values: _AttentionValues, slope: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Gradients at the outputs of q, k and v, given the one at what attention gives."""
        q, k, v = values.q, values.k, values.v
        out = self._by_key_head(self._heads(values.attn_out))
        back = self._by_key_head(self._heads(slope))
        # The mean over a query's shares of the gradients at them.
        means = np.einsum("hqtd,hqtd->hqt", back, out)
        q_slope, k_slope, v_slope = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
        for head, part, seen, hidden in self._parts(q):
            queries, backs = _rows(q[head, :, part]), _rows(back[head, :, part])
            shares = self._shares(queries, k[head, seen], hidden)
            v_slope[head, seen] += shares.T @ backs
            # Softmax: share x (gradient - mean gradient under the shares).
            scores = backs @ v[head, seen].T
            scores -= means[head, :, part].reshape(-1, 1)
            scores *= shares
            scores *= self._scale
            q_slope[head, :, part] = (scores @ k[head, seen]).reshape(q[head, :, part].shape)
            k_slope[head, seen] += scores.T @ queries
        q_slope = self._flat(rotate(q_slope.reshape(-1, *q.shape[2:]), self._of_queries, -1))
        k_slope = self._flat(rotate(k_slope, self._of_keys, -1))
        q_slope = self._normed_back("q", values.q_out, q_slope)
        return q_slope, self._normed_back("k", values.k_out, k_slope), self._flat(v_slope)

    def _normed(self, place: str, flat: Floats) -> Floats:
        """(tokens, channels) after the norm of this place, over whole rows or heads, if any."""
        weight = self._norms.get(place)
        if weight is None:
            return flat
        normed = rmsnorm(flat.reshape(-1, weight.size), weight, self._config.rms_norm_eps)
        return normed.reshape(flat.shape)

    def _normed_back(self, place: str, flat: Floats, slope: Floats) -> Floats:
        weight = self._norms.get(place)
        if weight is None:
            return slope
        x, slope = (each.reshape(-1, weight.size) for each in (flat, slope))
        return rmsnorm_back(x, weight, self._config.rms_norm_eps, slope).reshape(flat.shape)

    def _parts(self, q: Floats) -> Iterator[tuple[int, slice, slice, Floats]]:
        """(key head, its queries' positions, positions they see, -inf where one does not)."""
        tokens = q.shape[2]
        for start in range(0, tokens, QUERIES):
            stop = min(start + QUERIES, tokens)
            first = 0 if self._window is None else max(0, start + 1 - self._window)
            at, of = np.arange(start, stop)[:, None], np.arange(first, stop)
            hidden = of > at
            if self._window is not None:
                hidden |= of <= at - self._window
            mask = np.where(hidden, np.float32(-np.inf), np.float32(0))
            for head in range(len(q)):
                yield head, slice(start, stop), slice(first, stop), mask

    @property
    def _scale(self) -> np.float32:
        return np.float32(self._config.head_dim**-0.5)

    def _shares(self, queries: Floats, keys: Floats, hidden: Floats) -> Floats:
        """Attention of the queries that share a key head, (queries x positions, keys)."""
        scores = queries @ keys.T
        scores *= self._scale
        by_query = scores.reshape(-1, *hidden.shape)
        by_query += hidden
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores

    def _heads(self, flat: Floats) -> Floats:
        """(tokens, channels) as (heads, tokens, head_dim)."""
        return flat.reshape(len(flat), -1, self._config.head_dim).transpose(1, 0, 2)

    def _flat(self, heads: Floats) -> Floats:
        return heads.transpose(1, 0, 2).reshape(heads.shape[1], -1)

    def _by_key_head(self, heads: Floats) -> Floats:
        """(heads, tokens, head_dim) as (key heads, their queries, tokens, head_dim)."""
        return heads.reshape(self._config.num_key_value_heads, -1, *heads.shape[1:])

    def _linear(self, name: str, x: Floats) -> Floats:
        result: Floats = x @ self._weights[name].T
        if name in self._biases:
            result += self._biases[name]
        return result

    def _back(self, name: str, slope: Floats) -> Floats:
        result: Floats = slope @ self._weights[name]
        return result


def _rows(queries: Floats) -> Floats:
    """(queries of a key head, positions, head_dim) as a matrix."""
    return queries.reshape(-1, queries.shape[-1])


def _refuse_unknown_steps(config: ModelConfig) -> None:
    if config.residual_adapters:
        raise OptionError(
            f"No gradients are taken of a model with residual_adapters (model_type "
            f"{config.model_type!r}); calibrate with another of --methods."
        )
