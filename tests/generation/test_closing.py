"""A closed Generator refuses at once whatever computes, in every thread; what is known stays."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparity_edge import Generator, OptionError, SamplingParams, SparityError
from sparity_edge.plans.setting import DENSE
from sparity_edge.quality.divergence import divergences
from sparity_edge.quality.perplexity import perplexity
from sparity_edge.quality.scoring import score
from sparity_edge.system import threads
from sparity_edge.system.use_marks import in_use

FEW = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
MANY = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
TEXT = "The river went round it, year after year. "
CALLS: dict[str, Callable[[Generator, Path], Any]] = {
    "stream": lambda g, _: g.stream([1, 20], FEW),
    "generate": lambda g, _: g.generate([1, 20], FEW),
    "chat": lambda g, _: g.chat([{"role": "user", "content": "Hi"}], FEW),
    "stream_batch": lambda g, _: g.stream_batch([[1], [2]], FEW),
    "generate_batch": lambda g, _: g.generate_batch([[1], [2]], FEW),
    "logits": lambda g, _: g.logits([1, 20]),
    "score": lambda g, _: score(g, [1, 2], [[3, 4]]),
    "perplexity": lambda g, _: perplexity(g, TEXT),
    "divergences": lambda g, _: divergences(g, TEXT, [DENSE]),
    "twin": lambda g, _: g.twin(),
    "set_plan": lambda g, _: g.set_plan(sparsity=0.0),
    "sparsity": lambda g, _: setattr(g, "sparsity", 0.0),
    "sparse_prefill": lambda g, _: setattr(g, "sparse_prefill", True),
    "apply": lambda g, _: g.apply(DENSE),
    "compile": lambda g, _: g.compile(),
    "save_cache": lambda g, path: g.save_cache(path / "cache"),
    "load_cache": lambda g, path: g.load_cache(path / "cache"),
    "with": lambda g, _: g.__enter__(),
}


def load(checkpoint: Callable[[str], Path]) -> Generator:
    return Generator.load(checkpoint("llama_gqa"), dtype="f32", threads=2)


@pytest.fixture(scope="module")
def closed(checkpoint: Callable[[str], Path]) -> Generator:
    with load(checkpoint) as generator:
        generator.generate([1, 20], FEW)
    return generator


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is marked there")
def test_a_pack_is_in_use_until_its_generator_is_closed(checkpoint: Callable[[str], Path]) -> None:
    with load(checkpoint) as generator:
        path = Path(generator.info()["path"])
        generator.twin().close()
        assert in_use([path])
    assert not in_use([path])


def elsewhere(work: Callable[[], Any]) -> BaseException | None:
    """What a second thread's work raises; it has to end."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it hangs"
    return raised[0] if raised else None


@pytest.mark.parametrize("name", CALLS)
def test_a_closed_generator_refuses_at_once(closed: Generator, name: str, tmp_path: Path) -> None:
    with pytest.raises(SparityError, match="closed; load the model again"):
        CALLS[name](closed, tmp_path)
    error = elsewhere(lambda: CALLS[name](closed, tmp_path))
    assert isinstance(error, SparityError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CALLS)
def test_an_object_without_a_model_says_how_one_is_made(name: str, tmp_path: Path) -> None:
    with pytest.raises(SparityError, match=r"Generator\.load"):
        CALLS[name](Generator.__new__(Generator), tmp_path)
    with pytest.raises(OptionError, match=r"Generator\.load"):
        Generator("smollm2-135m")  # type: ignore[arg-type]
    Generator.__new__(Generator).close()


def test_what_is_known_stays(closed: Generator) -> None:
    assert closed.info()["model_type"] == "llama"
    assert closed.encode([1, 2]) == [1, 2]
    assert closed.tokenizer.decode(closed.encode("Hi")) == "Hi"
    assert (closed.threads, closed.plan, closed.sparsity) == (2, None, 0.0)
    closed.close()  # once more


def test_what_is_in_progress_ends(checkpoint: Callable[[str], Path]) -> None:
    for begin in (
        lambda g: g.stream([1, 20], MANY),
        lambda g: g.stream_batch([[1], [2]], MANY),
        lambda g: g.logits([7] * 250),
    ):
        generator = load(checkpoint)
        steps = begin(generator)
        unbegun = begin(generator)
        next(unbegun)
        assert elsewhere(generator.close) is None
        for each in (steps, unbegun):
            with pytest.raises(SparityError, match="closed"):
                list(each)


def test_closing_while_another_thread_decodes(checkpoint: Callable[[str], Path]) -> None:
    generator = load(checkpoint)
    started = threading.Event()

    def decode() -> None:
        while True:
            for _ in generator.stream([1, 20], MANY):
                started.set()

    watcher = threading.Thread(target=lambda: (started.wait(60), generator.close()), daemon=True)
    watcher.start()
    assert isinstance(elsewhere(decode), SparityError)
    watcher.join(60)
    assert not watcher.is_alive()


def test_twins_close_apart(checkpoint: Callable[[str], Path]) -> None:
    first = load(checkpoint)
    second = first.twin()
    before = second.generate([1, 20], FEW).token_ids
    first.close()
    assert second.generate([1, 20], FEW).token_ids == before
    second.close()
    with pytest.raises(SparityError, match="closed"):
        second.generate([1, 20], FEW)


def test_a_thousand_threads_on_two_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_allowed_cores", lambda: 2)
    assert [threads.checked_threads(count) for count in (1, 2, 8)] == [1, 2, 8]
    for count in (9, 1000, 1 << 70):
        with pytest.raises(
            OptionError, match=f"threads={count} .*; use {threads.default_threads()}, "
        ):
            threads.checked_threads(count)
    monkeypatch.setattr(threads, "_allowed_cores", lambda: 64)
    assert threads.checked_threads(256) == 256
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(OptionError, match="threads="):
            threads.checked_threads(bad)  # type: ignore[arg-type]
