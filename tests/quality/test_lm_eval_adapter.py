"""The adapter for lm-evaluation-harness, run by the harness on a task of local questions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparity_edge import OptionError

# An extra of its own that pulls in a hundred packages: without it there is nothing to test.
pytest.importorskip("lm_eval", reason="comes with the extra eval, which brings torch")
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = ["The model reads one word after another.", "Memory is slow. " * 5]


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> Iterator[Any]:
    from sparity_edge.lm_eval_adapter import SparityEdge

    loaded = SparityEdge(str(checkpoint("llama_untied")), dtype="f32", threads=2, max_length=48)
    yield loaded
    loaded.generator.close()


def request(*arguments: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(request_type="loglikelihood", doc={}, arguments=arguments, idx=0)


def losses(model: Any, ids: list[int]) -> np.ndarray:
    """Log-likelihood of each token after the first, from one cold pass."""
    parts = [np.array(part, dtype=np.float64) for part in model.generator.logits(ids)]
    rows = np.concatenate(parts)[:-1]
    likely = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return likely[range(len(rows)), ids[1:]]


def test_it_is_registered(model: Any) -> None:
    from lm_eval.api.registry import get_model

    from sparity_edge.quality import lm_eval_adapter

    assert type(model) is lm_eval_adapter.SparityEdge  # the public path is an alias
    assert get_model("sparity-edge") is type(model)


def test_variables_of_the_template(checkpoint: Callable[[str], Path]) -> None:
    from sparity_edge.lm_eval_adapter import SparityEdge

    folder = str(checkpoint("llama_untied"))
    template = "{{ messages[0].content }}{% if enable_thinking is false %} /no_think{% endif %}"
    names = set()
    for given in (None, "enable_thinking=false", {"enable_thinking": False}):
        model = SparityEdge(folder, dtype="f32", threads=2, template_args=given)
        model.generator.tokenizer.chat_template = template
        rendered = model.apply_chat_template([{"role": "user", "content": "Hi"}])
        assert rendered == ("Hi /no_think" if given else "Hi")
        names.add(model.tokenizer_name)
        model.generator.close()
    assert len(names) == 2  # requests that were rendered otherwise are not taken from a cache
    with pytest.raises(OptionError, match="is not NAME=VALUE"):
        SparityEdge(folder, template_args="thinking")


def test_loglikelihood(model: Any) -> None:
    pairs = [("The model reads", " one word"), ("The model reads", " memory"), ("", "Memory")]
    results = model.loglikelihood([request(*pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (logprob, _) in zip(pairs, results):
        before = model.tok_encode(context) or [model.prefix_token_id]
        ids = model.tok_encode(context + continuation)
        if not context:
            before, ids = ids[:1], ids
        wanted = losses(model, ids)[len(before) - 1 :].sum()
        assert logprob == pytest.approx(wanted, abs=1e-3)


def test_rolling_windows_predict_every_token_once(model: Any) -> None:
    short, long = model.loglikelihood_rolling([request(text) for text in TEXTS], True)
    ids = model.tok_encode(TEXTS[0])
    assert short == pytest.approx(losses(model, [model.prefix_token_id, *ids]).sum(), abs=1e-3)
    ids = model.tok_encode(TEXTS[1])
    room = model.max_length
    assert room < len(ids) < 2 * room
    first = losses(model, [model.prefix_token_id, *ids[:room]]).sum()
    rest = losses(model, ids[-room - 1 :])[room - len(ids) :].sum()
    assert long == pytest.approx(first + rest, abs=1e-3)


def test_generate_until(model: Any) -> None:
    options = {"until": ["\n\n"], "max_gen_toks": 6, "do_sample": False}
    (text,) = model.generate_until([request(TEXTS[0], options)], True)
    assert text == model.generate_until([request(TEXTS[0], options)], True)[0]
    with pytest.raises(OptionError, match="no room"):
        model.generate_until([request(TEXTS[0], {"max_gen_toks": 48})], True)


def test_options_of_a_task() -> None:
    from sparity_edge.lm_eval_adapter import sampling_params

    greedy = sampling_params({"until": "x", "temperature": 0.0, "max_tokens": 3})
    assert (greedy.temperature, greedy.max_tokens, greedy.stop) == (0, 3, ("x",))
    sampled = sampling_params({"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": 1})
    assert (sampled.temperature, sampled.top_k, sampled.top_p) == (0.8, 0, 0.9)
    with pytest.raises(OptionError, match="'beams'"):
        sampling_params({"beams": 2})
    spelled_out = {"num_beams": 1, "repetition_penalty": 1.2, "do_sample": False, "use_cache": True}
    assert sampling_params(spelled_out).repetition_penalty == 1.2
    assert sampling_params({"do_sample": True, "presence_penalty": 0.5}).presence_penalty == 0.5
    with pytest.raises(OptionError, match="num_beams=4"):
        sampling_params({"num_beams": 4})


def test_the_harness_runs_it(model: Any, tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    lines = [{"q": TEXTS[0], "choices": ["memory", "one"], "label": i % 2} for i in range(4)]
    data = tmp_path / "local.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    task = {
        "task": "local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    manager = TaskManager(include_defaults=False)
    found = lm_eval.simple_evaluate(model, tasks=[task], task_manager=manager, bootstrap_iters=0)
    assert math.isclose(found["results"]["local"]["acc,none"], 0.5)
