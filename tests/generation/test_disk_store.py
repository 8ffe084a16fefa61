"""Beginnings of prompts on disk: no bit depends on them, and no damage to them does harm."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparity_edge import Completion, FormatError, Generator, OptionError, SamplingParams
from sparity_edge.model.prefixes.blocks import BLOCK
from sparity_edge.model.prefixes.disk_store import DiskStore
from sparity_edge.model.prefixes.parts import FEW

PARAMS = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True, logprobs=True)
TEXT = [5 + (7 * k) % 200 for k in range(3 * BLOCK + 5)]


@pytest.fixture(scope="module")
def generator(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint("llama_gqa"), dtype="int8", threads=2) as loaded:
        yield loaded


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def opened(
    generator: Generator, tmp_path: Path, told: list[str]
) -> Iterator[Callable[..., Generator]]:
    """A generator that keeps prompts in one folder, as a process of its own would have it."""
    twins = []

    def open_twin(megabytes: int = 64) -> Generator:
        twins.append(generator.twin())
        twins[-1].loaded.keep_prefixes(tmp_path / "kept", megabytes, told.append)
        return twins[-1]

    yield open_twin
    for each in twins:
        each.close()


def answer(generator: Generator, ids: list[int], *, keep: bool = True) -> Completion:
    """From an empty KV cache; all that is to be kept is written at the end."""
    generator.loaded.model.kv_cache.trim(0)
    found = generator.generate(ids, PARAMS)
    if keep and generator.loaded.prefixes is not None:
        generator.loaded.prefixes.close()
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.prefix"))


def assert_same(one: Completion, other: Completion) -> None:
    assert (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs)


@pytest.mark.parametrize("more", [0, 1, FEW, FEW + 2, 2 * BLOCK])
def test_what_was_read_before_a_restart_is_not_read_again(
    opened: Callable[..., Generator], generator: Generator, more: int
) -> None:
    assert answer(opened(), TEXT).stats.cached_tokens == 0
    prompt = [*TEXT, *range(9, 9 + more)]
    found = answer(opened(), prompt)
    least = len(TEXT) // BLOCK * BLOCK
    assert min(least, len(prompt) - FEW - 1) <= found.stats.cached_tokens <= least
    assert_same(found, answer(generator, prompt))


def test_another_end_takes_the_same_beginning(
    opened: Callable[..., Generator], generator: Generator
) -> None:
    answer(opened(), TEXT)
    prompt = [*TEXT[: BLOCK + 9], *range(60, 110)]
    found = answer(opened(), prompt)
    assert found.stats.cached_tokens == BLOCK
    assert_same(found, answer(generator, prompt))


def test_batches_take_over_and_keep(opened: Callable[..., Generator], generator: Generator) -> None:
    first, prompts = opened(), [TEXT, [*TEXT[:BLOCK], *range(40, 90)], [3, 4]]
    expected = [answer(generator, prompt) for prompt in prompts]
    for _ in range(2):
        for found, own in zip(first.generate_batch(prompts, PARAMS), expected, strict=True):
            assert_same(found, own)
        assert first.loaded.prefixes is not None
        first.loaded.prefixes.close()
    assert [each.stats.cached_tokens for each in opened().generate_batch(prompts, PARAMS)] == [
        len(TEXT) - FEW - 1,
        2 * BLOCK,
        0,
    ]


def test_a_damaged_file_is_dropped_and_told(
    opened: Callable[..., Generator], generator: Generator, tmp_path: Path, told: list[str]
) -> None:
    expected = answer(generator, TEXT)
    for damage in (
        lambda content: content[:100],
        lambda content: content[:0],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content + b"x" * 10_000,
        lambda content: b"\xff" * len(content),
    ):
        answer(opened(), TEXT)
        for path in files(tmp_path):
            path.write_bytes(damage(path.read_bytes()))
        told.clear()
        found = answer(opened(), TEXT)
        assert found.stats.cached_tokens == 0
        assert_same(found, expected)
        assert len(told) == 1
        assert "is not used" in told[0]
        assert answer(opened(), TEXT).stats.cached_tokens > 0  # written anew


def test_files_that_changed_places_are_not_believed(
    opened: Callable[..., Generator], tmp_path: Path, told: list[str]
) -> None:
    answer(opened(), TEXT)
    paths = files(tmp_path)
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)
    assert answer(opened(), TEXT).stats.cached_tokens == 0
    assert "not the prefix that its name says" in told[0]


def test_what_was_used_longest_ago_goes_first(
    opened: Callable[..., Generator], generator: Generator, tmp_path: Path
) -> None:
    answer(opened(), TEXT)
    paths = files(tmp_path)
    for path in paths:
        os.utime(path, (1, 1))
    size = paths[0].stat().st_size
    store = DiskStore(tmp_path / "kept", generator.path, 4 * size, print)
    answer(generator, [7, *TEXT])
    store.keep(generator.loaded.model.kv_cache)
    store.close()
    left = files(tmp_path)
    assert len(left) == 3
    assert not set(left) & set(paths)


def test_what_was_decoded_is_not_kept(opened: Callable[..., Generator], tmp_path: Path) -> None:
    first = opened()
    first.loaded.model.kv_cache.trim(0)
    first.generate([3, 4], SamplingParams(max_tokens=2 * BLOCK, ignore_eos=True, seed=1))
    assert len(first.loaded.model.kv_cache) > BLOCK
    first.loaded.keep(first.loaded.model.kv_cache)
    assert first.loaded.prefixes is not None
    first.loaded.prefixes.close()
    assert not files(tmp_path)


def test_a_sequence_that_is_over_does_not_mind_another_call(
    opened: Callable[..., Generator],
) -> None:
    first = opened()
    steps = first.stream([3, 4], SamplingParams(max_tokens=1, ignore_eos=True, seed=1))
    assert next(steps).finish_reason == "length"
    first.generate([5, 6], PARAMS)
    assert not list(steps)


def test_a_folder_that_cannot_be(generator: Generator, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FormatError, match="cannot be written"):
        generator.twin().loaded.keep_prefixes(tmp_path / "file" / "below", 64, print)
    with pytest.raises(OptionError, match="cache_dir_mb=0"):
        generator.twin().loaded.keep_prefixes(tmp_path, 0, print)


def test_a_full_disk_is_told_once(
    opened: Callable[..., Generator], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparity_edge.model.prefixes.blocks.replace_file", full)
    first = opened()
    for begin in (5, 6):
        answer(first, [begin, *TEXT])
    assert len(told) == 1
    assert "the disk is full" in told[0]
