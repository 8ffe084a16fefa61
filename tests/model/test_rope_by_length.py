"""Rope types whose frequencies depend on the length of the text, with everything a cache may do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rope_settings
import tiny
import tiny_cases

from sparity_edge import Generator
from sparity_edge.errors import FormatError
from sparity_edge.model.model import Model

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "rope.npz")
IDS = tiny.ids_of("rope_dynamic")
LONG = [*IDS, *IDS[1:]]  # beyond the original length of the longrope model, 48


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tiny.write(tmp_path_factory.mktemp("dynamic"), tiny_cases.DYNAMIC)
    with Generator.load(folder, dtype="f32", threads=2) as generator:
        yield generator.loaded.model


@pytest.fixture(scope="module")
def longrope(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint("rope_longrope"), dtype="f32", threads=2) as generator:
        yield generator


def rows(model: Model, ids: list[int]) -> np.ndarray:
    return np.concatenate([part.copy() for part in model.read_all_logits(ids)])


@pytest.mark.parametrize("first", [len(IDS), rope_settings.PROMPT, 1])
def test_dynamic_is_what_transformers_computes_with_its_cache(dynamic: Model, first: int) -> None:
    dynamic.kv_cache.trim(0)
    found = [rows(dynamic, IDS[:first]), *(rows(dynamic, [each]) for each in IDS[first:])]
    golden = GOLDEN[f"dynamic after {first}"]
    assert np.abs(np.concatenate(found) - golden).max() < 1e-5 * np.abs(golden).max()


def test_a_longer_prompt_and_a_shorter_text_do_not_depend_on_what_was_cached(
    dynamic: Model,
) -> None:
    dynamic.kv_cache.trim(0)
    rows(dynamic, IDS[:20])
    behind = rows(dynamic, IDS[20:])  # more tokens than are read one by one
    assert np.abs(behind - GOLDEN[f"dynamic after {len(IDS)}"][20:]).max() < 1e-4
    dynamic.kv_cache.trim(10)
    again = rows(dynamic, IDS[10:12])
    assert np.abs(again - GOLDEN["dynamic after 1"][10:12]).max() < 1e-4


def test_longrope_reads_a_text_again_when_it_grows_and_when_it_is_cut(longrope: Generator) -> None:
    model = longrope.loaded.model
    model.kv_cache.trim(0)
    whole, short = rows(model, LONG), rows_after(model, [], IDS)
    for cached in (len(IDS), 48):  # the 49th token is the first of a long text
        found = rows_after(model, LONG[:cached], LONG[cached:])
        np.testing.assert_allclose(found, whole[cached:], atol=1e-4)
    model.kv_cache.trim(20)
    np.testing.assert_allclose(rows(model, IDS[20:]), short[20:], atol=1e-4)


def rows_after(model: Model, cached: list[int], ids: list[int]) -> np.ndarray:
    model.kv_cache.trim(0)
    if cached:
        model.read(cached)
    return rows(model, ids)


def test_sequences_of_a_batch_cross_the_length_each_on_its_own(longrope: Generator) -> None:
    model, caches = longrope.loaded.model, []
    for length in (30, 47, 50):
        caches.append(model.new_kv_cache())
        model.read(LONG[:length], cache=caches[-1])
    for _ in range(3):
        together = model.read_together([LONG[len(cache)] for cache in caches], caches).copy()
        for cache, logits in zip(caches, together, strict=True):
            alone = rows_after(model, [], LONG[: len(cache)])[-1]
            np.testing.assert_allclose(logits, alone, atol=1e-4)


def test_a_saved_kv_cache_says_how_its_keys_are_rotated(
    longrope: Generator, tmp_path: Path
) -> None:
    model = longrope.loaded.model
    expected = rows_after(model, LONG[:60], LONG[60:61])
    model.kv_cache.trim(60)
    longrope.save_cache(tmp_path / "kept")
    rows_after(model, [], IDS)
    longrope.load_cache(tmp_path / "kept")
    np.testing.assert_array_equal(rows(model, LONG[60:61]), expected)
    content = (tmp_path / "kept").read_bytes()
    (tmp_path / "kept").write_bytes(content.replace(b'"stretch":"49"', b'"stretch":"4x"'))
    with pytest.raises(FormatError, match="stretch='4x'"):
        longrope.load_cache(tmp_path / "kept")
