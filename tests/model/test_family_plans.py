"""Plans of every family from text to tokens: calibrated, on the dial, close to dense at first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from converters.calibrate import calibrate
from converters.rotate import rotated
from converters.sources import open_source
from sparity_edge import Generator, OptionError
from sparity_edge.logits import kl_divergence, log_normaliser


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("granite_constants", ["auto"]),
        ("ministral3_queries", ["auto"]),
        ("olmo2_plain", ["auto", "centred"]),
        ("phi3_longrope", ["centred"]),
        ("qwen3_plain", ["auto"]),
        ("smollm3_every_fourth", ["auto"]),
    ],
)
def test_plans(
    name: str, methods: list[str], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(tiny.TRAINING_TEXT) * 20)
    folder = str(checkpoint(name))
    for plan in calibrate(folder, texts=[text], methods=methods, tokens=1024, dtype="f32"):
        with Generator.load(str(plan.folder), threads=1) as generator:
            dense = logits(generator, name)
            generator.set_plan(plan.family.name, sparsity=0.02, force=True)
            assert divergence(dense, logits(generator, name)) < 0.1
            generator.set_plan(plan.family.name, sparsity=plan.family.most * 0.9, force=True)
            assert 0.3 < divergence(dense, logits(generator, name)) < 6
            assert generator.active_weight_fraction < 0.9


def test_rotation_of_what_is_normed_afterwards(checkpoint: Callable[[str], Path]) -> None:
    folder = str(checkpoint("olmo2_plain"))
    with pytest.raises(OptionError, match="Models of type olmo2 cannot be rotated, as they norm"):
        calibrate(folder, methods=["larosa"], dtype="f32")
    with (
        open_source(folder) as source,
        pytest.raises(OptionError, match="cannot be rotated: models of type olmo2 norm what each"),
    ):
        rotated(source, folder, "layers", threads=1)


def logits(generator: Generator, name: str) -> np.ndarray:
    """(positions, vocab_size), reading one token after the other as the plan in force says."""
    generator.loaded.model.kv_cache.trim(0)
    parts = generator.loaded.model.read_all_logits(tiny.ids_of(name), sparse=True)
    return np.concatenate([np.array(part) for part in parts])


def divergence(dense: np.ndarray, sparse: np.ndarray) -> float:
    """The mean KL divergence of sparse predictions from dense ones, in nats a position."""
    return float(kl_divergence(dense, log_normaliser(dense), sparse, log_normaliser(sparse)).mean())
