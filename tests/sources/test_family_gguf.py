"""GGUF files of every family: the logits that transformers computes from the same checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf_families
import numpy as np
import pytest
import tiny
from goldens import assert_golden

from converters.sources import open_source
from sparity_edge import Generator, SourceError

CASES = (
    "granite_constants",
    "ministral3_queries",
    "phi3_partial",
    "phi3_longrope",
    "qwen3_plain",
    "smollm3_every_fourth",
    "olmo2_plain",
)


def logits_of(path: Path, name: str) -> np.ndarray:
    with Generator.load(str(path), dtype="f32", threads=2) as generator:
        model = generator.loaded.model
        return np.concatenate([np.array(part) for part in model.read_all_logits(tiny.ids_of(name))])


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    assert_golden(name, logits_of(gguf_families.write(tmp_path / "model.gguf", name), name))


def olmo3(path: Path, **windows: Any) -> str:
    """A GGUF file of OLMo 3 without scaled rope, its keys of windows as given."""
    keys = {f"olmo2.attention.{key}": value for key, value in windows.items()}
    return str(gguf_families.write(path / "olmo3.gguf", "olmo2_plain", more=keys))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(None, (6, 6)), ([True, False], (6, None)), (2, (6, None)), (1, (None, None)), (0, (6, 6))],
)
def test_windows_of_olmo3(pattern: Any, expected: tuple[int | None, ...], tmp_path: Path) -> None:
    windows = {"sliding_window": 6, "sliding_window_pattern": pattern}
    with open_source(olmo3(tmp_path, **windows)) as source:
        assert source.config.model_type == "olmo3"
        assert source.config.sliding_windows == expected


def test_windows_of_another_number_of_layers(tmp_path: Path) -> None:
    pattern = [True, False, True]
    with pytest.raises(SourceError, match=r"window_pattern is of 3 layers, and the model has 2"):
        open_source(olmo3(tmp_path, sliding_window=6, sliding_window_pattern=pattern))


def test_olmo2_has_no_window(tmp_path: Path) -> None:
    with open_source(olmo3(tmp_path)) as source:
        assert source.config.model_type == "olmo2"


def test_a_norm_before_beside_one_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stems = {**gguf_families.AFTER, "post_feedforward_layernorm": "ffn_norm"}
    monkeypatch.setitem(gguf_families.ARCHITECTURES, "olmo2", ("olmo2", stems))
    with pytest.raises(SourceError, match=r"'blk\.0\.ffn_norm\.weight' has no place"):
        open_source(str(gguf_families.write(tmp_path / "a.gguf", "olmo2_plain")))


def test_layers_of_olmo3_with_a_window_are_not_stretched(tmp_path: Path) -> None:
    keys = {
        "olmo2.attention.sliding_window": 6,
        "olmo2.attention.sliding_window_pattern": [True, False],
        "olmo2.rope.scaling.type": "yarn",
        "olmo2.rope.scaling.factor": 8.0,
        "olmo2.rope.scaling.original_context_length": 32,
    }
    path = gguf_families.write(tmp_path / "a.gguf", "olmo2_plain", more=keys)
    with open_source(str(path)) as source:
        windowed, full = (source.config.rope(layer) for layer in range(2))
    assert windowed is not None
    assert windowed.scaling is None
    assert full is not None
    assert full.scaling is not None
    assert (full.scaling.rope_type, full.scaling.factor) == ("yarn", 8.0)
