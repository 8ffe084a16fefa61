"""Bases of the residual stream: its principal components over calibration text, by layer or of all.

What is rotated are the normalised inputs of attention and FFN without the weights of their norms,
n = x / rms(x), since these weights are folded into the matrices (`rotated`). With H = E[n n^T] a
basis is the matrix of H's eigenvectors: few of its coordinates then hold most of n, and what a
token's others hold is small. The authors' released code takes the eigenvectors of the input of
attention with its norm's weights, and so of another vector than the one that the folding rotates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from converters.calibration.observe import dense_model
from converters.calibration.statistics import FIRST
from converters.calibration.windows import Windows
from sparity_edge.arrays import Floats
from sparity_edge.model.layer_run import LayerRun, Vectors
from sparity_edge.packed.folder import PackedModel
from sparity_edge.progress import Progress, silent

Matrix = npt.NDArray[np.float64]


def find_bases(
    packed: PackedModel,
    windows: Windows,
    kind: str,
    *,
    threads: int,
    progress: Progress = silent,
) -> list[Floats]:
    """The basis of every layer, orthogonal (hidden, hidden): x Q is x in that basis.

    Args:
        packed: the model, whose residual stream is seen in the basis that it came with.
        windows: calibration text, token ids (windows, tokens).
        kind: "layers": each layer has a basis of its own; "global": all have the same.
        threads: how many compute.
        progress: told of layers.
    """
    found: list[Floats] = []
    whole = np.zeros((packed.config.hidden_size,) * 2)
    with (
        threadpool_limits(1, "blas"),  # sums must not depend on how many threads BLAS would take
        dense_model(packed, windows.shape[1], threads, progress) as model,
        LayerRun(model, windows) as run,
    ):
        for layer in range(run.layers):
            moment = _second_moment(run, layer)
            if kind == "layers":
                found.append(_principal(moment))
            whole += moment
            progress("rotate", layer + 1, run.layers)
    return found or [_principal(whole)] * packed.config.num_hidden_layers


def _second_moment(run: LayerRun, layer: int) -> Matrix:
    """The sum of n n^T over tokens, for both halves of a layer together; runs the layer."""
    config = run.model.config
    moment = np.zeros((config.hidden_size,) * 2)
    for residual in run.residual:
        x = residual[FIRST:]
        n = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + np.float32(config.rms_norm_eps))
        moment += n.T @ n
    norm = run.model.decoder.layers[layer].norms.before_ffn
    assert norm is not None
    inverse = np.divide(1, norm, where=norm != 0, out=np.zeros_like(norm))

    def visit(vectors: Vectors) -> None:
        n = vectors.mlp_in[max(0, FIRST - vectors.position) :] * inverse
        moment[:] += n.T @ n

    run.run(layer, visit)
    return moment


def _principal(moment: Matrix) -> Floats:
    """Eigenvectors in columns, the largest component first, each with a sign of its own."""
    vectors = np.linalg.eigh(moment)[1][:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(vectors))])
    return np.ascontiguousarray(vectors * signs, dtype=np.float32)
