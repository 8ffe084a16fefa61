"""Plans of methods for inputs, from text to tokens: stored, on the dial, the same as masking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from packing import pack_folder
from plan_families import masked_and_sparse

from converters.calibrate import calibrate
from sparity_edge import Generator
from sparity_edge.errors import FormatError
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import add_plan, read_plan

NAMES = ("wina", "wisparse", "scap", "nm-16", "nm-32", "nm-16-amber", "nm-16-spts", "nm-16-lpts",
         "larosa-rates", "larosa-rates-static")  # fmt: skip
IDS = np.random.default_rng(0).integers(5, 280, 200).tolist()


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that carries a plan of each method."""
    out = tmp_path_factory.mktemp("methods") / "model"
    path = pack_folder(checkpoint("llama_gqa"), out, "f32", "input")
    calibrate(str(path), tokens=1024, methods=NAMES, threads=2)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_sparse_kernels_equal_masking(name: str, folder: Path) -> None:
    packed = open_packed(folder)
    plan = read_plan(open_folder(folder), name).at_level(0.4)
    masked, sparse = masked_and_sparse(packed, plan, IDS[:40])
    assert np.abs(sparse - masked).max() < 1e-4 * np.abs(masked).max()


@pytest.mark.parametrize(("name", "sparsity"), list(zip(NAMES, (0.2, 0.35) * len(NAMES))))
def test_the_dial_keeps_its_word(name: str, sparsity: float, folder: Path) -> None:
    with Generator.load(folder, threads=1, sparse_prefill=True) as generator:
        generator.set_plan(name, sparsity=sparsity)
        list(generator.logits(IDS))
        assert generator.active_weight_fraction == pytest.approx(1 - sparsity, abs=0.02)


def test_plans_of_another_model_are_refused(
    folder: Path, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    other = open_folder(pack_folder(checkpoint("qwen2_plain"), tmp_path / "other", "f32", "input"))
    for name in NAMES:
        with pytest.raises(FormatError, match="model"):
            add_plan(other, read_plan(open_folder(folder), name))
