"""Neurons that are left out or guessed, as references: against plain NumPy on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.calibration.layer_weights import LayerWeights
from converters.calibration.observe import dense_model
from sparity_edge.model.layer_run import LayerRun
from sparity_edge.model.opening import open_packed
from sparity_edge.progress import silent

WINDOWS = np.random.default_rng(0).integers(5, 280, (2, 40))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    with dense_model(open_packed(folder), WINDOWS.shape[1], 1, silent) as opened:
        yield opened


def test_logits_are_the_models_where_all_is_computed(bench: Any, model: Any) -> None:
    left_out = bench("limits.left_out")
    found = left_out.logits(model, WINDOWS)
    for window, ours in zip(WINDOWS, found, strict=True):
        model.kv_cache.trim(0)
        own = np.concatenate([np.array(each) for each in model.read_all_logits(window.tolist())])
        assert np.abs(ours - own).max() < 1e-4 * np.abs(own).max()
    every = left_out.logits(model, WINDOWS, lambda _, vectors: np.ones(vectors.gate.shape, bool))
    assert np.array_equal(every, found)
    assert np.abs(left_out.divergence(found, every)).max() < 1e-6


def test_what_is_left_out_is_the_sum_of_its_neurons(bench: Any, model: Any) -> None:
    left_out, seen = bench("limits.left_out"), []
    down = LayerWeights(model.packed, 0).down
    chosen = np.arange(down.shape[1]) % 3 > 0
    with LayerRun(model, WINDOWS) as run:
        before = run.residual.copy()
        run.run(0, lambda vectors: seen.append((vectors.residual.copy(), vectors.mlp_mid.copy())))
        assert not np.array_equal(run.residual, before)
    with_all, middle = seen[0]
    expected = with_all - middle[:, ~chosen] @ down[:, ~chosen].T

    def choose(layer: int, vectors: Any) -> Any:
        if layer == 1 and vectors.window == 0:
            attention.append(vectors.attn_in.copy())
        return chosen if layer == 0 else None

    attention: list[Any] = []
    left_out.logits(model, WINDOWS, choose)
    norm = model.decoder.layers[1].norms.before_attention
    size = np.sqrt((expected**2).mean(axis=1, keepdims=True) + model.config.rms_norm_eps)
    assert np.abs(attention[0] - expected / size * norm).max() < 1e-4


def test_a_guess_of_full_rank_is_ridge_regression(bench: Any) -> None:
    predictor, random = bench("limits.predictor"), np.random.default_rng(1)
    x = random.standard_normal((400, 6)).astype(np.float32) + 0.5
    matters = (x @ random.standard_normal((6, 9)) > 0.3).astype(np.float32)
    (guess,) = predictor.closed_form(x, matters, [6])
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / len(x)
    ridge = predictor.RIDGE * np.trace(covariance) / 6 * np.eye(6)
    slope = np.linalg.solve(covariance + ridge, centred.T @ (matters - matters.mean(axis=0)))
    expected = centred @ slope / len(x) + matters.mean(axis=0)
    assert np.abs(guess.scores(x) - expected).max() < 1e-4
    lesser = next(iter(predictor.closed_form(x, matters, [2])))
    assert np.linalg.matrix_rank(lesser.first @ lesser.second) == 2
    recalls = [predictor.quality(each, x, matters > 0, np.ones_like(matters))[0]
               for each in (guess, predictor.trained(guess, x, matters, 3))]  # fmt: skip
    assert min(recalls) > 0.85


def test_griffin_chooses_by_shares_of_each_token(bench: Any) -> None:
    """s_i = sqrt(sum over tokens of (z_i / |z|)^2), Dong and others, 2024, equation 6."""
    prompt, random = bench("limits.prompt_neurons"), np.random.default_rng(2)
    z = random.standard_normal((7, 12)).astype(np.float32) * 10 ** random.uniform(-3, 3, (7, 1))
    statistic = np.sqrt(sum((row / np.sqrt((row**2).sum())) ** 2 for row in z))
    for way, scores in (("griffin", statistic), ("tda", np.abs(z).mean(axis=0) * np.arange(12))):
        chooser = prompt.Chooser(way, 0.25, [np.arange(12)], 0.9)
        first, _ = (chooser(0, Chunk(z, at)) for at in (0, 256))
        assert first is None
        chosen = chooser(0, Chunk(-z, 512))
        assert set(np.flatnonzero(chosen)) == set(np.argsort(-scores)[:3])


def test_tails_weigh_the_same_in_every_layer(bench: Any) -> None:
    """CETT(t): the mean over tokens of |sum of the neurons below t| over |all of them|."""
    tails, random = bench("limits.tails"), np.random.default_rng(4)
    curves = []
    for spread in (0.5, 2.0):
        z = random.standard_normal((20, 64)) * 10 ** random.uniform(-spread, spread, 64)
        down, pooled = random.standard_normal((8, 64)), np.abs(z).mean(axis=0)
        norms = np.linalg.norm(down, axis=0)
        curves.append(tails.weighed(z, norms, down, (pooled * norms)[None]))
        thresholds, cetts, shares = curves[-1]
        dropped = [row * (np.abs(row) * norms < thresholds[10]) for row in z]
        errors = [np.linalg.norm(down @ part) / np.linalg.norm(down @ row)
                  for part, row in zip(dropped, z)]  # fmt: skip
        assert cetts[10] == pytest.approx(np.mean(errors))
        assert shares[10] == np.mean(pooled * norms > thresholds[10])
    found, cett = tails.thresholds_of(curves, 0.6)
    kept = [np.interp(t, values, shares) for t, (values, _, shares) in zip(found, curves)]
    assert np.mean(kept) == pytest.approx(0.6, abs=0.02)
    reached = [np.interp(t, values, cetts) for t, (values, cetts, _) in zip(found, curves)]
    assert reached == pytest.approx([cett, cett], abs=1e-6)


class Chunk:
    """Vectors of a chunk of the only window."""

    def __init__(self, z: Any, at: int) -> None:
        self.mlp_mid, self.mlp_in, self.window, self.position = z, np.abs(z), 0, at
