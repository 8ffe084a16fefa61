"""Rotary tables: frequencies as transformers computes them, and which ones a text takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rope_settings

from sparity_edge.model.families import read_config
from sparity_edge.model.rotary import EACH_ITS_OWN, PLAIN, RopeTables, frequencies

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "rope.npz")
HEAD_DIM, LENGTHS = rope_settings.HEAD_DIM, rope_settings.LENGTHS


def tables(name: str, positions: int = 0) -> RopeTables:
    setting = rope_settings.SETTINGS[name]
    return RopeTables(read_config({**rope_settings.BASE, "rope_parameters": setting}), positions)


@pytest.mark.parametrize("name", rope_settings.SETTINGS)
def test_frequencies_and_attention_factors(name: str) -> None:
    for length, golden in zip(LENGTHS, GOLDEN[name], strict=True):
        made = tables(name, length)
        rope = made.config.rope(0)
        assert rope is not None
        found = frequencies(rope, made.stretch(length))
        np.testing.assert_allclose(found, golden[:-1], rtol=4e-7)
        table = made.of_keys(0, made.stretch(length))
        angles = np.float32(length - 1) * found
        expected = golden[-1] * np.concatenate([np.cos(angles), np.sin(angles)])
        np.testing.assert_allclose(table[-1], expected, atol=1e-6)
        assert made.of_queries(0, made.stretch(length)) is table


def test_token_by_token_dynamic_frequencies_are_those_of_the_text_so_far() -> None:
    made, first = tables("dynamic", 300), rope_settings.CONTEXT
    assert made.stretch(first, EACH_ITS_OWN, whole=False) == PLAIN
    assert made.stretch(first + 1, PLAIN, whole=False) == EACH_ITS_OWN
    assert made.stretch(first + 9, first + 9, whole=False) == first + 9  # the prompt's last token
    grown = made.of_keys(0, EACH_ITS_OWN)
    np.testing.assert_array_equal(grown[:first], made.of_keys(0)[:first])
    for length in (first + 1, 300):
        whole = made.of_keys(0, made.stretch(length))
        np.testing.assert_allclose(grown[length - 1], whole[length - 1], atol=2e-5)


def test_tables_are_made_once_and_those_of_other_lengths_go() -> None:
    made = tables("dynamic", 300)
    plain, long = made.of_keys(0), made.of_keys(0, 290)
    assert made.of_keys(0, 290) is long
    made.of_keys(0, 291)
    assert made.of_keys(0, 290) is not long
    assert made.of_keys(0) is plain
    made.cover(200)
    assert made.of_keys(0) is plain
    made.cover(301)
    assert made.of_keys(0).shape == (301, HEAD_DIM)


def test_queries_of_ministral_grow_with_every_original_length() -> None:
    scaling = {**rope_settings.SETTINGS["yarn"], "llama_4_scaling_beta": 0.1}
    made = RopeTables(read_config({**rope_settings.BASE, "rope_parameters": scaling}), 100)
    expected = 1 + 0.1 * np.log(1 + np.arange(100) // 32)
    np.testing.assert_allclose(
        made.of_queries(0), made.of_keys(0) * expected[:, None].astype(np.float32), rtol=1e-6
    )
