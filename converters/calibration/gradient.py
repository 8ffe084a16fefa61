"""One forward and one backward pass of the decoder in NumPy, for what a change of an input costs.

Labels are sampled from the dense model itself, so that squares of these gradients estimate the
Fisher information: half the mean square of gradient times change is the KL divergence that a small
change causes. Nothing is learned and no gradient of a weight is formed. The residual stream before
every layer is kept, a layer's inner vectors are computed anew on the way back, and the weights of
one layer at a time are numbers. Knows nothing of sparsity; the visitor decides what to add up.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from converters.calibration.gradient_layer import LayerFloats, Slopes
from converters.calibration.gradient_steps import rmsnorm, rmsnorm_back
from converters.calibration.layer_weights import read_matrix, read_vector
from sparity_edge.arrays import Floats
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.model.rotary import RopeTables
from sparity_edge.packed.folder import PackedModel
from sparity_edge.progress import Progress, silent

VOCABULARY_STEP = 8192  # rows of the head that are numbers at a time: 50 MB at hidden size 1536
Windows = npt.NDArray[np.int64]  # (windows, tokens of a window)


Visitor = Callable[[int, list[Slopes]], None]


@dataclass(frozen=True)
class Halfway:
    """Where a backward pass stands: it can go on from there."""

    layer: int  # that came last
    slopes: Floats  # (windows, tokens, hidden), the gradient at that layer's input
    losses: npt.NDArray[np.float64]  # (windows,) mean of a token


def _unheard(_: Halfway) -> None:
    """Nobody wants to know."""


def backward(
    packed: PackedModel,
    windows: Windows,
    visit: Visitor,
    *,
    streams: Callable[[int], Floats] | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Progress = silent,
    begun: Halfway | None = None,
    halfway: Callable[[Halfway], None] = _unheard,
) -> float:
    """Take the gradient of the sampled labels' loss through the whole decoder.

    Memory: (layers + 1) x tokens x hidden float32, the logits of a window for each thread, and one
    layer's weights.

    Args:
        packed: the weights, in any layout and number format.
        windows: token ids; each row is read from a cold start.
        visit: called with a layer's number and what it computes for each window, last layer first.
        streams: given how many of the first layers are wanted, gives the residual stream before
            each of them and behind the last, (layers + 1, windows, tokens, hidden); None: computed
            here, in NumPy.
        seed: of the labels.
        threads: windows that are worked on at a time; no result depends on it.
        progress: told of layers.
        begun: where a former pass over the same windows stood; layers that came then are left out.
        halfway: told after each layer where the pass stands.

    Returns:
        The mean loss of a token, in nats.
    """
    config = packed.config
    layers = config.num_hidden_layers
    left = layers if begun is None else begun.layer
    rope = RopeTables(config, windows.shape[1])
    with ThreadPoolExecutor(threads) as pool:
        before = streams(left) if streams else _forward(packed, windows, left, rope, pool)
        downstream = np.empty_like(before[0])
        randoms = (np.random.default_rng([seed, window]) for window in range(len(windows)))
        if begun is None:
            head = partial(_head, packed, config)
            losses = np.array(list(pool.map(head, before[-1], randoms, downstream)))
        else:
            downstream[:], losses = begun.slopes, begun.losses
        for layer in reversed(range(left)):
            floats = LayerFloats(packed, config, layer, rope)
            found = list(pool.map(floats.through, before[layer], downstream))
            downstream[:] = [slope for _, slope in found]
            visit(layer, [slopes for slopes, _ in found])
            halfway(Halfway(layer, downstream, losses))
            progress("backward", layers - layer, layers)
    return float(np.mean(losses))


def _forward(
    packed: PackedModel, windows: Windows, layers: int, rope: RopeTables, pool: ThreadPoolExecutor
) -> Floats:
    """The residual stream before each of the first layers, and behind the last of them."""
    config = packed.config
    streams = np.empty((layers + 1, *windows.shape, config.hidden_size), dtype=np.float32)
    streams[0] = embedded(packed, windows)
    for layer in range(layers):
        floats = LayerFloats(packed, config, layer, rope)
        streams[layer + 1] = list(pool.map(floats.forward, streams[layer]))
    return streams


def _head(
    packed: PackedModel, config: ModelConfig, x: Floats, random: np.random.Generator, out: Floats
) -> float:
    """The mean loss of one window; `out` receives the gradient at x (tokens, hidden)."""
    name = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    norm = read_vector(packed, "model.norm.weight") * np.float32(config.scales.head)
    h = rmsnorm(x, norm, config.rms_norm_eps)
    starts = range(0, config.vocab_size, VOCABULARY_STEP)
    logits = np.empty((len(x), config.vocab_size), dtype=np.float32)
    for start in starts:
        part = slice(start, min(start + VOCABULARY_STEP, config.vocab_size))
        logits[:, part] = h @ read_matrix(packed, name, part.start, part.stop).T
    loss = _sampled_loss(logits, random)
    slope = np.zeros_like(h)
    for start in starts:
        part = slice(start, min(start + VOCABULARY_STEP, config.vocab_size))
        slope += logits[:, part] @ read_matrix(packed, name, part.start, part.stop)
    out[:] = rmsnorm_back(x, norm, config.rms_norm_eps, slope)
    return loss


def _sampled_loss(logits: Floats, random: np.random.Generator) -> float:
    """Sample labels and turn logits into the loss's gradient, in place; returns the mean loss."""
    loss = 0.0
    for row in logits:
        row -= row.max()
        np.exp(row, out=row)
        below = np.cumsum(row, dtype=np.float64)
        label = _sample(below, random)
        loss -= float(np.log(row[label] / below[-1]))
        row /= np.float32(below[-1])
        row[label] -= 1
    return loss / len(logits)


def _sample(below: npt.NDArray[np.float64], random: np.random.Generator) -> int:
    place = int(np.searchsorted(below, random.random() * below[-1], side="right"))
    return min(place, len(below) - 1)


def embedded(packed: PackedModel, windows: Windows) -> Floats:
    """The rows of the embedding that the windows name, (windows, tokens, hidden)."""
    ids, places = np.unique(windows, return_inverse=True)
    found = [read_matrix(packed, "model.embed_tokens.weight", int(i), int(i) + 1)[0] for i in ids]
    embedding = np.stack(found) * np.float32(packed.config.scales.embedding)
    return embedding[places.reshape(windows.shape)]
