"""Log-probabilities of completions and steps: the log-softmax of the model's own logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparity_edge import Completion, Generator, OptionError, SamplingParams


def test_logprobs_are_the_models_own(checkpoint: Callable[[str], Path]) -> None:
    params = SamplingParams(
        seed=3, max_tokens=6, ignore_eos=True, temperature=5.0, top_logprobs=4, logit_bias={7: 30}
    )
    prompt = [1, 20, 30]
    with Generator.load(checkpoint("llama_gqa"), dtype="f32", threads=1) as generator:
        steps = list(generator.stream(prompt, params))
        answer = Completion.of(steps)
        (batched,) = generator.generate_batch([prompt], params)
        ids = [*prompt, *answer.token_ids[:-1]]
        logits = np.concatenate([part.copy() for part in generator.logits(ids)]).astype(np.float64)
        without = generator.generate(prompt, SamplingParams(max_tokens=2, ignore_eos=True))
    rows = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[len(prompt) - 1 :]
    expected = [row[token] for row, token in zip(rows, answer.token_ids, strict=True)]
    assert answer.logprobs == pytest.approx(expected, abs=1e-4)
    for row, found, step in zip(rows, answer.top_logprobs, steps, strict=True):
        assert list(found) == np.argsort(-row)[:4].tolist()
        assert list(found.values()) == pytest.approx(np.sort(row)[::-1][:4].tolist(), abs=1e-4)
        assert step.top_logprobs == found
    assert batched.token_ids == answer.token_ids
    assert batched.logprobs == pytest.approx(answer.logprobs, abs=1e-4)
    assert (len(without.logprobs), without.top_logprobs) == (2, ({}, {}))


@pytest.mark.parametrize("count", [-1, 21, 1.5, True])
def test_numbers_out_of_range(count: object) -> None:
    with pytest.raises(OptionError, match="top_logprobs"):
        SamplingParams(top_logprobs=count)  # type: ignore[arg-type]
