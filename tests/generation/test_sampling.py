"""Sampling: each filter against its slow definition, seeds, invariances, and refusals."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparity_edge.errors import OptionError, SparityError
from sparity_edge.generation.sampler import (
    NUCLEUS_GUESS,
    Sampler,
    SamplingParams,
    draw,
    highest,
    nucleus,
)

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
# Few distinct values, so that ties are common.
LOGITS = st.lists(st.sampled_from([-math.inf, -3.0, -1.0, 0.0, 0.5, 0.5001, 2.0]), min_size=1)
WEIGHTS = st.lists(st.sampled_from([0.0, 1e-9, 0.1, 0.25, 0.5, 1.0]), min_size=1).filter(any)


def array(values: list[float]) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def support(logits: list[float], history: tuple[int, ...] = (), **options: Any) -> set[int]:
    """All tokens that can be drawn."""
    sampler = Sampler(SamplingParams(**{**PLAIN, **options}), len(logits))
    return {sampler.sample(array(logits), history)[0] for _ in range(200)}


def ranked(values: list[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


@given(LOGITS, st.data())
@settings(deadline=None)
def test_highest_is_a_stable_sort(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    assert highest(array(values), k).tolist() == sorted(ranked(values)[:k])


@given(WEIGHTS, st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 0.999, 1.0]))
@settings(deadline=None)
def test_nucleus_is_the_shortest_head_that_reaches_the_share(w: list[float], top_p: float) -> None:
    kept = nucleus(np.array(w), top_p).tolist()
    order = ranked(w)
    assert kept == sorted(order[: len(kept)])
    total = np.array(w).sum()
    assert sum(w[i] for i in kept) >= top_p * total - 1e-12
    assert len(kept) == 1 or sum(w[i] for i in order[: len(kept) - 1]) < top_p * total + 1e-12


def test_nucleus_of_many_weights_equals_the_plain_way() -> None:
    w = np.random.default_rng(1).random(NUCLEUS_GUESS * 4) ** 40
    for top_p in (0.1, 0.5, 0.99, 0.9999):
        order = np.argsort(-w, kind="stable")
        count = int(np.argmax(np.cumsum(w[order]) >= top_p * w.sum() - 1e-12)) + 1
        assert nucleus(w, top_p).tolist() == sorted(order[:count].tolist())


@given(WEIGHTS, st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_draw_inverts_the_running_sum(w: list[float], u: float) -> None:
    at = draw(np.array(w), u)
    assert w[at] > 0
    assert sum(w[:at]) <= u * sum(w) + 1e-12
    assert sum(w[: at + 1]) >= u * sum(w) - 1e-12


def test_draw_follows_the_probabilities() -> None:
    logits = np.log(array([0.5, 0.3, 0.2]))
    sampler = Sampler(SamplingParams(**PLAIN, seed=7), 3)
    counts = Counter(sampler.sample(logits, ())[0] for _ in range(4000))
    assert [round(counts[i] / 4000, 1) for i in range(3)] == [0.5, 0.3, 0.2]


@given(LOGITS.filter(lambda values: max(values) > -math.inf))
@settings(deadline=None)
def test_greedy_takes_the_first_of_the_best(values: list[float]) -> None:
    token, _ = Sampler(SamplingParams(temperature=0), len(values)).sample(array(values), ())
    assert token == ranked(values)[0]


@given(LOGITS.filter(lambda values: max(values) > -math.inf), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_filters_that_remove_nothing_change_nothing(values: list[float], seed: int) -> None:
    x = array(values)
    without = Sampler(SamplingParams(**PLAIN, seed=seed), x.size)
    options = {**PLAIN, "top_k": x.size, "min_p": 1e-9, "repetition_penalty": 1.0}
    with_all = Sampler(SamplingParams(**options, seed=seed), x.size)
    for _ in range(3):
        assert without.sample(x, ()) == with_all.sample(x, (0, 0))


def test_the_same_seed_draws_the_same_and_a_shift_of_all_logits_too() -> None:
    x = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    a, b, c, d = (Sampler(SamplingParams(seed=seed), 500) for seed in (3, 3, 3, 4))
    draws = [a.sample(x, ())[0] for _ in range(20)]
    assert draws == [b.sample(x, ())[0] for _ in range(20)]
    assert draws == [c.sample(x + np.float32(64), ())[0] for _ in range(20)]
    assert draws != [d.sample(x, ())[0] for _ in range(20)]
    assert len({tuple(Sampler(SamplingParams(), 500).sample(x, ()) for _ in range(9))} | {()}) == 2


def test_filters_in_their_order() -> None:
    logits = np.log([0.4, 0.3, 0.2, 0.1]).tolist()
    assert support(logits) == {0, 1, 2, 3}
    assert support(logits, top_k=2) == {0, 1}
    assert support(logits, top_p=0.65) == {0, 1}
    assert support(logits, top_p=0) == {0}
    assert support(logits, min_p=0.45) == {0, 1, 2}
    # 0.4 / 0.7 reaches 0.55 once top_k has left two tokens
    assert support(logits, top_k=2, top_p=0.55) == {0}
    # a high temperature flattens before min_p looks
    assert support(logits, temperature=100.0, min_p=0.9) == {0, 1, 2, 3}
    assert support(logits, temperature=1e-30) == {0}
    assert support(logits, logit_bias={0: -math.inf, 3: -100}) == {1, 2}


def test_penalties() -> None:
    def best(logits: list[float], answer: list[int], *prompt: int, **options: Any) -> int:
        sampler = Sampler(SamplingParams(temperature=0, **options), len(logits))
        return sampler.sample(array(logits), [*prompt, *answer], len(answer))[0]

    assert best([2.0, 1.5], [0], repetition_penalty=2) == 1
    assert best([-1.0, -1.5], [0], repetition_penalty=2) == 1  # negative ones are multiplied
    assert best([2.0, 1.5], [1], repetition_penalty=2) == 0
    assert best([2.0, 1.5], [0], presence_penalty=0.6) == 1
    assert best([2.0, 1.5], [0, 0], presence_penalty=0.4) == 0  # once, however often seen
    assert best([2.0, 1.5], [0, 0], frequency_penalty=0.4) == 1
    assert best([2.0, 1.5], [0], frequency_penalty=0.4) == 0
    assert best([2.0, 1.5], [], repetition_penalty=9, frequency_penalty=9) == 0
    # the prompt counts for the repetition penalty alone
    assert best([2.0, 1.5], [], 0, repetition_penalty=2) == 1
    assert best([2.0, 1.5], [], 0, 0, 0, presence_penalty=2, frequency_penalty=2) == 0
    assert best([2.0, 1.5], [1], 0, 0, 0, presence_penalty=2, frequency_penalty=2) == 0
    assert best([2.0, 1.5], [0], 0, 0, 0, frequency_penalty=0.4) == 0  # counted once, not 4 times
    assert best([2.0, 1.5], [0], 0, 0, 0, frequency_penalty=0.6) == 1
    # in that order: the repetition penalty divides before the others are taken off
    assert best([4.0, 2.2], [0], repetition_penalty=2, presence_penalty=-0.3) == 0
    # bias comes before the repetition penalty: (2 + 2) / 2 < 2.5
    assert best([2.0, 2.5], [0], logit_bias={0: 2}, repetition_penalty=2) == 1


def test_logprob_is_of_the_unmodified_distribution_and_logits_stay() -> None:
    x = np.log(array([0.5, 0.25, 0.25])) + 3
    before = x.copy()
    params = SamplingParams(temperature=0, logit_bias={1: 50}, repetition_penalty=3)
    token, logprob = Sampler(params, 3).sample(x, [0, 2])
    assert token == 1
    assert logprob == pytest.approx(math.log(0.25), abs=1e-6)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error(bad: float) -> None:
    with pytest.raises(SparityError, match="not a number"):
        Sampler(SamplingParams(), 3).sample(array([0.0, bad, 1.0]), ())
    with pytest.raises(SparityError, match="not a number"):
        Sampler(SamplingParams(), 2).sample(array([-math.inf, -math.inf]), ())


def test_bans() -> None:
    ban = {0: -math.inf, 1: -math.inf}
    with pytest.raises(OptionError, match="every token"):
        Sampler(SamplingParams(logit_bias=ban), 2)
    with pytest.raises(OptionError, match="every token"):
        Sampler(SamplingParams(logit_bias=ban), 3).sample(array([0.0, 0.0, -math.inf]), ())
    with pytest.raises(OptionError, match="token 3"):
        Sampler(SamplingParams(logit_bias={3: 1}), 3)
    for token in (-1, 3):
        with pytest.raises(OptionError, match="history"):
            Sampler(SamplingParams(presence_penalty=1), 3).sample(array([0.0] * 3), [token], 1)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "hot"},
        {"temperature": True},
        {"temperature": 10**400},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_k": True},
        {"top_p": 1.1},
        {"top_p": -0.1},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"repetition_penalty": -1},
        {"presence_penalty": 1e9},
        {"frequency_penalty": math.nan},
        {"seed": -1},
        {"seed": 1 << 64},
        {"seed": 0.5},
        {"stop": ("",)},
        {"stop": 5},
        {"stop": [5]},
        {"stop": ["x"] * 65},
        {"stop": "x" * 1001},
        {"max_tokens": 0},
        {"max_tokens": 1.0},
        {"logit_bias": [1]},
        {"logit_bias": {-1: 0}},
        {"logit_bias": {"1": 0}},
        {"logit_bias": {1: math.nan}},
        {"logit_bias": {1: math.inf}},
        {"logit_bias": {1: "x"}},
        {"ignore_eos": 1},
    ],
)
def test_values_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        SamplingParams(**options)


def test_params_are_plain_data() -> None:
    params = SamplingParams(stop="end", top_k=np.int64(5), temperature=1, logit_bias={7: -math.inf})
    assert params.stop == ("end",)
    assert type(params.top_k) is int
    assert type(params.temperature) is float
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")
    assert SamplingParams(**dataclasses.asdict(params)) == params
    assert hash(params) == hash(dataclasses.replace(params))
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_k = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        SamplingParams(topk=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        SamplingParams(0.5)  # type: ignore[misc]


def test_one_token_of_a_real_vocabulary_takes_well_under_a_millisecond() -> None:
    x = (np.random.default_rng(0).standard_normal(49152) * 3).astype(np.float32)
    sampler = Sampler(SamplingParams(), 49152)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        sampler.sample(x, ())
        times.append(time.perf_counter() - started)
    assert min(times) < 1e-3  # 0.1 ms where it was measured
