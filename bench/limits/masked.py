"""Masked references: a decoder in plain NumPy whose linears follow rules that no kernel has.

Each layer runs over windows of text, dense and by every rule, before the next one, so one layer's
weights are numbers at a time. A rule sees the inputs of a linear and its weights and says what
comes out in the place of x W^T; what it has to learn it learns of the dense model on calibration
text. It measures loss, not speed. Knows nothing of any rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from converters.calibration.gradient import Windows, embedded
from converters.calibration.gradient_layer import LayerFloats
from converters.calibration.gradient_steps import rmsnorm
from converters.calibration.layer_weights import read_matrix, read_vector
from converters.calibration.statistics import FIRST
from sparity_edge.arrays import Floats
from sparity_edge.logits import kl_divergence, log_normaliser
from sparity_edge.model.rotary import RopeTables
from sparity_edge.packed.folder import PackedModel

POSITIONS = 256  # whose logits are numbers at a time
# Of one layer by linear, (outputs, inputs); weights of the norms as `attn_in` and `mlp_in`.
Weights = Mapping[str, Floats]


def nothing(_name: str, _x: Floats, _weights: Weights) -> None:
    """There is nothing to learn."""


@dataclass(frozen=True)
class Rule:
    """What a linear computes in the place of x W^T."""

    apply: Callable[[Floats, Floats, Any], Floats]  # x, W and what was learnt
    learn: Callable[[str, Floats, Weights], Any] = nothing  # linear, calibration inputs, weights


class _Layer(LayerFloats):
    """A layer that follows a rule but for the first positions; without one, inputs are kept."""

    rule: Rule | None = None

    def _linear(self, name: str, x: Floats) -> Floats:
        if self.rule is None:
            self.inputs[name].append(x[FIRST:])
            return super()._linear(name, x)
        known = (self.rule, name)
        if known not in self.learnt:
            inputs = np.concatenate(self.inputs[name])
            before = {"attn_in": "before_attention", "mlp_in": "before_ffn"}
            norms = {site: self._norms[place] for site, place in before.items()}
            self.learnt[known] = self.rule.learn(name, inputs, self._weights | norms)
        rest = self.rule.apply(x[FIRST:], self._weights[name], self.learnt[known])
        if name in self._biases:
            rest = rest + self._biases[name]
        return np.concatenate([super()._linear(name, x[:FIRST]), rest])

    @cached_property
    def inputs(self) -> dict[str, list[Floats]]:
        """By linear, of each window."""
        return {name: [] for name in self._weights}

    @cached_property
    def learnt(self) -> dict[tuple[Rule, str], Any]:
        """What each rule has learnt of a linear."""
        return {}


def divergences(
    packed: PackedModel,
    windows: Windows,
    calibration: Windows,
    rules: Mapping[str, Rule],
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """KL to the dense model of each rule, in nats a position, over (windows, tokens) of token ids.

    Args:
        packed: the model.
        windows: on which the loss is measured.
        calibration: of which rules learn.
        rules: by name.
        progress: told of layers.
    """
    config = packed.config
    rope = RopeTables(config, max(windows.shape[1], calibration.shape[1]))
    learnt, dense = embedded(packed, calibration), embedded(packed, windows)
    streams = dict.fromkeys(rules, dense)
    for layer in range(config.num_hidden_layers):
        floats = _Layer(packed, config, layer, rope)
        learnt = np.stack([floats.forward(x) for x in learnt])
        plain = LayerFloats(packed, config, layer, rope)
        dense = np.stack([plain.forward(x) for x in dense])
        for name, rule in rules.items():
            floats.rule = rule
            streams[name] = np.stack([floats.forward(x) for x in streams[name]])
        progress(layer)
    name = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    head = read_matrix(packed, name)
    norm = read_vector(packed, "model.norm.weight")
    totals = dict.fromkeys(rules, 0.0)
    flat = dense.reshape(-1, config.hidden_size)
    for start in range(0, len(flat), POSITIONS):
        part = slice(start, start + POSITIONS)
        logits = rmsnorm(flat[part], norm, config.rms_norm_eps) @ head.T
        normaliser = log_normaliser(logits)
        for key, stream in streams.items():
            x = stream.reshape(flat.shape)[part]
            other = rmsnorm(x, norm, config.rms_norm_eps) @ head.T
            found = kl_divergence(logits, normaliser, other, log_normaliser(other))
            totals[key] += float(found.sum())
    return {key: total / len(flat) for key, total in totals.items()}
