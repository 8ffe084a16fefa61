"""Sampling parameters out of generation_config.json: taken, passed over, and gone by."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sparity_edge import Generator, SamplingParams
from sparity_edge.generation.suggested import suggested_params, suggestions


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, SamplingParams()),
        (
            {"temperature": 0.2, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.1},
            SamplingParams(temperature=0.2, top_p=0.9, top_k=50, repetition_penalty=1.1),
        ),
        ({"min_p": 0.05, "top_k": 20.0}, SamplingParams(min_p=0.05, top_k=20)),
        ({"temperature": None, "top_k": 0}, SamplingParams(top_k=0)),
        (
            {"temperature": "hot", "top_p": 7, "top_k": [], "min_p": True, "do_sample": False},
            SamplingParams(),
        ),
        ({"temperature": float("nan"), "top_k": 1e30, "top_p": 0.5}, SamplingParams(top_p=0.5)),
        ({"seed": 1, "max_tokens": 5, "stop": "a", "max_length": 20}, SamplingParams()),
    ],
)
def test_what_is_in_range_is_taken(config: dict[str, object], expected: SamplingParams) -> None:
    params = suggested_params(config)
    assert params == expected
    assert bool(suggestions(params)) == (params != SamplingParams())


def test_calls_without_params_go_by_the_model(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llama_small"), folder)
    suggestion = {"temperature": 0.0, "eos_token_id": None}
    (folder / "generation_config.json").write_text(json.dumps(suggestion))
    with Generator.load(folder, dtype="f32", threads=1, max_context=24) as generator:
        assert generator.default_params == SamplingParams(temperature=0)
        greedy = generator.generate([1, 2, 3], SamplingParams(temperature=0)).token_ids
        assert generator.generate([1, 2, 3]).token_ids == greedy
        assert generator.generate_batch([[1, 2, 3]])[0].token_ids == greedy
        with generator.twin() as other:
            assert other.default_params == generator.default_params
