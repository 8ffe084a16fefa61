"""How chat answers end under different sampling settings: by themselves, in a loop, or not at all.

A hundred prompts (the first turns of MT-Bench, and GSM8K questions), one answer each with a fixed
seed. Beside the endings stand what a setting costs: the mean log-probability that the model itself
gives to what was sampled, and the share of distinct 4-grams. A loop is a text of at least 40
characters that stands at the end of the answer three times in a row.

    python bench/endings.py ../shared/data --model smollm2-135m@wheel
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from shared.common import add_models, models_so_far, parser, save, say

from sparity_edge import Generator, SamplingParams
from sparity_edge.generation.results import Completion, Step
from sparity_edge.measure.machine import machine

TOKENS = 400
TODAY: dict[str, Any] = {"temperature": 0.7, "top_k": 40, "top_p": 0.95}
COOL: dict[str, Any] = {"temperature": 0.7, "top_k": 0, "top_p": 1.0, "min_p": 0.05}
SETTINGS: dict[str, dict[str, Any]] = {
    "top-k 40, top-p 0.95": TODAY,
    "min-p 0.05": COOL,
    "min-p 0.1": {**COOL, "min_p": 0.1},
    "repetition 1.05": {**TODAY, "repetition_penalty": 1.05},
    "repetition 1.1": {**TODAY, "repetition_penalty": 1.1},
    "min-p 0.05, repetition 1.05": {**COOL, "repetition_penalty": 1.05},
    "frequency 0.2": {**TODAY, "frequency_penalty": 0.2},
    "DRY 0.8": {**TODAY, "dry": 0.8},
    "temperature 0": {"temperature": 0},
}


class Dry:
    """Penalises the token that would lengthen a repetition (DRY, text-generation-webui #5677).

    Args:
        multiplier: of the penalty multiplier * 1.75 ** (length - 2) for a repeated sequence of
            more than two tokens.
        prompt: how many token ids at the beginning are no answer.
    """

    def __init__(self, multiplier: float, prompt: int) -> None:
        self.multiplier, self.prompt = multiplier, prompt

    def __call__(
        self, token_ids: Sequence[int], logits: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        ids = list(token_ids[self.prompt :])
        longest: dict[int, int] = {}
        for at in range(len(ids) - 1):
            if ids[at] != ids[-1]:
                continue
            length = 1
            while length <= at and length < 50 and ids[at - length] == ids[-1 - length]:
                length += 1
            longest[ids[at + 1]] = max(longest.get(ids[at + 1], 0), length)
        changed = logits.copy()
        for token, length in longest.items():
            if length > 2:
                changed[token] -= self.multiplier * 1.75 ** (length - 2)
        return changed


def prompts_of(data: Path) -> Iterator[str]:
    for line in _lines(data / "mt_bench" / "question.jsonl"):
        yield line["turns"][0]
    for line in _lines(data / "gsm8k" / "test.jsonl")[:20]:
        yield line["question"]


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def answers(
    generator: Generator, prompts: Sequence[str], setting: dict[str, Any]
) -> list[list[Step]]:
    """The steps of an answer to each prompt."""
    setting = dict(setting)
    dry = setting.pop("dry", None)
    params = [
        SamplingParams(max_tokens=TOKENS, seed=number, **setting) for number in range(len(prompts))
    ]
    chats = [[{"role": "user", "content": text}] for text in prompts]
    processors: Any = ()
    if dry is not None:
        processors = [[Dry(dry, len(generator.encode(chat)))] for chat in chats]
    steps: list[list[Step]] = [[] for _ in prompts]
    for number, step in generator.stream_batch(chats, params, logits_processors=processors):
        steps[number].append(step)
    return steps


def loops(text: str) -> bool:
    """Whether the end of a text is one passage of 40 characters or more, three times in a row."""
    most = len(text) // 3
    return any(
        text[-size:] == text[-2 * size : -size] == text[-3 * size : -2 * size]
        for size in range(40, most + 1)
    )


def figures(found: Sequence[Sequence[Step]]) -> dict[str, float]:
    """What the answers of a setting come to."""
    completions = [Completion.of(list(steps)) for steps in found]
    counted = [
        len(set(grams)) / len(grams)
        for each in completions
        if (grams := list(zip(*(each.token_ids[start:] for start in range(4)))))
    ]
    return {
        "prompts": len(completions),
        "ended": sum(each.finish_reason == "stop" for each in completions),
        "loops": sum(loops(each.text) for each in completions),
        "tokens": statistics.mean(len(each.token_ids) for each in completions),
        "logprob": statistics.mean(step.logprob for steps in found for step in steps),
        "distinct_4grams": statistics.mean(counted),
    }


def main() -> int:
    arguments_of = parser(__doc__, "endings")
    add_models(arguments_of)
    arguments_of.add_argument("data", type=Path, help="the folder of evaluation text")
    arguments_of.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    arguments_of.add_argument("--every", type=int, default=1, help="take every N-th prompt only")
    arguments = arguments_of.parse_args()
    every = 10 if arguments.quick else arguments.every
    prompts = list(prompts_of(arguments.data))[::every]
    reports = models_so_far(arguments.out)
    for model in arguments.model or ["smollm2-135m@wheel"]:
        with Generator.load(model, threads=arguments.threads, max_context=2048) as generator:
            for name in arguments.settings:
                done = answers(generator, prompts, SETTINGS[name])
                found = figures(done)
                reports.setdefault(Path(model).name, {})[name] = found
                say(f"{Path(model).name}: {name}: {found}")
                save(arguments.out, {"machine": machine(), "tokens": TOKENS, "models": reports})
    return 0


if __name__ == "__main__":
    sys.exit(main())
