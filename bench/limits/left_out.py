"""A model whose FFNs leave neurons out, as a reference: everything is computed, then taken away.

Layer by layer over windows of text (`LayerRun`); what a layer leaves out is subtracted from the
residual stream behind it. Shows what a choice of neurons costs before there is a kernel for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# Given a layer's number and its vectors for a chunk of one window: which neurons are computed,
# (tokens, neurons) or (neurons,); None: all.
Choice = Callable[[int, Any], Any]


def largest(scores: Any, count: int) -> Any:
    """Which of each row are among the `count` largest, of the shape of the scores."""
    order = np.argpartition(-scores, count - 1, axis=-1)[..., :count]
    found = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(found, order, values=True, axis=-1)
    return found


def logits(model: Any, windows: Any, choose: Choice | None = None) -> Any:
    """Logits of the windows, (windows, tokens, vocab_size), computing what is chosen alone."""
    from converters.calibration.layer_weights import LayerWeights, read_matrix
    from sparity_edge.model.layer_run import LayerRun

    packed, config = model.packed, model.config
    with LayerRun(model, windows) as run:
        for layer in range(run.layers):
            if choose is None:
                run.run(layer)
                continue
            down = LayerWeights(packed, layer).down

            def leave_out(vectors: Any, layer: int = layer, down: Any = down) -> None:
                chosen = choose(layer, vectors)
                if chosen is not None:
                    vectors.residual[:] -= (vectors.mlp_mid * ~chosen) @ down.T

            run.run(layer, leave_out)
        x = run.residual.reshape(-1, config.hidden_size)
    h = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + config.rms_norm_eps) * model.decoder.norm
    name = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    return (h @ read_matrix(packed, name).T).reshape(*windows.shape, -1)


def divergence(whole: Any, other: Any) -> Any:
    """KL(whole || other) of the softmax of each row, in nats, of the shape of the rows."""
    p, q = (each - each.max(axis=-1, keepdims=True) for each in (whole, other))
    p, q = (each - np.log(np.exp(each).sum(axis=-1, keepdims=True)) for each in (p, q))
    return (np.exp(p) * (p - q)).sum(axis=-1)
