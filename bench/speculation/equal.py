"""Many answers with speculation and without it: the same tokens, and the same KV cache.

Every guess that there is is read, whatever it costs, so that as many as can be are wrong. Prompts
are pieces of HumanEval, GSM8K and MT-Bench; answers are greedy, for each number of threads.

    python bench/speculation/equal.py ../shared/data --model smollm2-135m@wheel --answers 300
    python bench/speculation/equal.py ../shared/data --model PACK --plan teal --sparsity 0.3
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.as_cpu import labelled
from shared.common import add_models, models_so_far, parser, save, say
from shared.models import DEFAULT_MODEL
from tasks.results import json_lines

from sparity_edge import Generator, SamplingParams
from sparity_edge.generation.speculation.pace import Pace
from sparity_edge.measure.machine import machine
from sparity_edge.progress import silent

THREADS = (1, 2, 5)


class Eager(Pace):
    """A pace that reads all guesses."""

    def size(self, chances: Sequence[float], _depth: int, most: int, _recorded: Any) -> int:
        return 1 if not chances else max(each for each in (2, 4, 8) if each <= most)

    def passed(self, *_: Any) -> None:
        pass


def prompts_of(data: Path, count: int) -> list[str]:
    """So many prompts, spread over all of them."""
    found = [line["prompt"] for line in json_lines(data / "humaneval" / "HumanEval.jsonl")]
    found += [line["question"] for line in json_lines(data / "gsm8k" / "test.jsonl")]
    found += [line["turns"][0] for line in json_lines(data / "mt_bench" / "question.jsonl")]
    return [found[index * len(found) // count] for index in range(count)]


def compare(generator: Generator, prompts: Sequence[str], tokens: int) -> dict[str, Any]:
    """How many answers are equal, and what was drafted."""
    cache = generator.loaded.model.kv_cache
    params = SamplingParams(temperature=0, max_tokens=tokens)
    equal = same_cache = drafted = accepted = length = 0
    for prompt in prompts:
        answers, caches = [], []
        for speculation in (False, True):
            generator.speculation = speculation
            cache.trim(0)
            answers.append(generator.chat(prompt, params))
            rows = (*cache.keys, *cache.values)
            caches.append((list(cache.ids), [each[:, : len(cache)].copy() for each in rows]))
        equal += answers[0].token_ids == answers[1].token_ids
        pairs = zip(caches[0][1], caches[1][1], strict=True)
        same_rows = all(np.array_equal(mine, yours) for mine, yours in pairs)
        same_cache += caches[0][0] == caches[1][0] and same_rows
        length += len(answers[0].token_ids)
        drafted += answers[1].stats.drafted_tokens
        accepted += answers[1].stats.accepted_tokens
    return {
        "answers": len(prompts), "equal": equal, "caches_equal": same_cache, "tokens": length,
        "drafted": drafted, "accepted": accepted,
    }  # fmt: skip


def main() -> int:
    understood = parser(__doc__, "speculation_equal")
    add_models(understood)
    understood.add_argument("data", type=Path, help="the folder of evaluation text")
    understood.add_argument("--answers", type=int, default=300)
    understood.add_argument("--tokens", type=int, default=128, help="of an answer at most")
    understood.add_argument("--plan", help="of the packed folder, to be followed")
    understood.add_argument("--sparsity", type=float, default=0.0, help="that the plan gives")
    options = understood.parse_args()
    prompts = prompts_of(options.data, 10 if options.quick else options.answers)
    report = {"machine": machine(), "models": models_so_far(options.out)}
    fine = True
    for model in options.model or [DEFAULT_MODEL]:
        for threads in THREADS if options.threads is None else (options.threads,):
            with Generator.load(model, threads=threads, max_context=4096) as generator:
                generator.loaded.model.machine.compile_batches(silent)
                if options.sparsity:
                    generator.set_plan(options.plan, sparsity=options.sparsity, force=True)
                generator.loaded.pace = Eager()
                found = compare(generator, prompts, options.tokens)
                name = labelled(Path(str(generator.info()["source"])).stem)
                if options.sparsity:
                    name = f"{name}, {generator.plan} at {options.sparsity}"
            report["models"].setdefault(name, {})[str(threads)] = found
            say(f"{name}, {threads} threads: {found}")
            fine &= found["equal"] == found["caches_equal"] == found["answers"]
            save(options.out, report)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
