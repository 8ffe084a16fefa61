"""KV caches that are kept: the longest beginning is taken over, and the oldest goes first."""

from __future__ import annotations

import pytest

from sparity_edge import Generator
from sparity_edge.model.kv_cache import LEAST_SHARED, KVCache
from sparity_edge.model.prefixes.parts import FEW
from sparity_edge.server.prefix_store import PrefixStore

TEXT = list(range(3, 3 + 3 * LEAST_SHARED))
MORE = list(range(200, 202 + FEW))


@pytest.fixture
def store(generator: Generator) -> PrefixStore:
    return PrefixStore(generator.loaded.model.new_kv_cache, 1 << 30)


def filled(store: PrefixStore, ids: list[int]) -> KVCache:
    cache = store.begin([])
    cache.reserve(len(ids))
    cache.append(ids, as_prompt=True)
    return cache


def test_a_text_that_goes_on_takes_its_cache_back(store: PrefixStore) -> None:
    kept = filled(store, TEXT)
    store.keep(kept)
    assert store.begin([*TEXT, *MORE]) is kept
    assert store.nbytes == 0


def test_what_was_decoded_is_read_again(store: PrefixStore) -> None:
    kept = filled(store, TEXT)
    kept.append(MORE, as_prompt=False)
    store.keep(kept)
    assert store.begin([*TEXT, *MORE, *MORE]).ids == TEXT


def test_a_text_that_branches_off_gets_a_copy(store: PrefixStore) -> None:
    kept = filled(store, TEXT)
    kept.keys[0][:] = 7
    store.keep(kept)
    other = store.begin([*TEXT[:-5], *MORE])
    assert other is not kept
    assert other.ids == TEXT[:-5]
    assert (other.keys[0][:, : len(other)] == 7).all()
    assert len(kept) == len(TEXT)


def test_an_empty_one_is_made_beforehand(generator: Generator) -> None:
    made: list[KVCache] = []

    def make() -> KVCache:
        made.append(generator.loaded.model.new_kv_cache())
        return made[-1]

    store = PrefixStore(make, 1 << 30)
    store.prepare()
    assert len(made) == 1
    assert store.nbytes == 0
    assert store.begin([]) is made[0]
    assert store.begin([]) is made[1]


def test_short_beginnings_are_read_again(store: PrefixStore) -> None:
    store.keep(filled(store, TEXT))
    assert len(store.begin([*TEXT[: LEAST_SHARED - 1], 1])) == 0


def test_the_whole_prompt_is_never_taken_over(store: PrefixStore) -> None:
    store.keep(filled(store, TEXT))
    assert len(store.begin(TEXT)) == len(TEXT) - FEW - 1


def test_a_sequence_under_way_is_copied_from(store: PrefixStore) -> None:
    busy = filled(store, TEXT)
    assert store.begin([*TEXT, *MORE], [busy]).ids == TEXT
    assert len(busy) == len(TEXT)


def test_what_begins_another_text_is_not_kept_twice(store: PrefixStore) -> None:
    store.keep(filled(store, TEXT))
    longer = filled(store, [*TEXT, 5])
    store.keep(longer)
    assert store.nbytes == longer.nbytes


def test_the_oldest_goes_first(store: PrefixStore) -> None:
    caches = [filled(store, [first, *TEXT]) for first in (200, 201, 202)]
    small = PrefixStore(store._make, 2 * caches[0].nbytes)
    small.keep(caches[0])
    small.keep(caches[1])
    assert len(small.begin([200, *TEXT[:-1], *MORE])) == len(TEXT)  # used again: the last to go
    small.keep(caches[2])
    assert len(small.begin([201, *TEXT[:-1], *MORE])) == 0
    assert len(small.begin([200, *TEXT[:-1], *MORE])) == len(TEXT)
