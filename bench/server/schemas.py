"""Answers held to 25 varied schemas: how many are valid, and what a token of them costs.

Answers are drawn at temperature 1 from the whole vocabulary, and each is checked by jsonschema,
formats included; those that the limit of tokens cuts are counted apart. For the cost every answer
of some rounds is followed, or preceded, by a free text of as many tokens behind the same prompt.
Beside the times of tokens stands what the schema's own work takes of them, by a clock around it.

    python bench/server/schemas.py --answers 500
    python bench/server/schemas.py --model model.gguf --label 1.5B --answers 100
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import jsonschema
from shared.as_cpu import labelled
from shared.common import PAUSE, models_so_far, parser, save, say, thread_count
from shared.models import DEFAULT_MODEL

from sparity_edge import Generator, SamplingParams
from sparity_edge.generation.constraint.constraint import ConstraintState
from sparity_edge.generation.results import Completion
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import ratios, summary, table, with_spread

VARIED = json.loads(Path(__file__).with_name("varied.json").read_text(encoding="utf-8"))
MOST_TOKENS = 1500
SEED = 17


def params(seed: int, tokens: int, free: bool = False) -> SamplingParams:
    """Temperature 1, and nothing else that changes what may be drawn."""
    return SamplingParams(
        temperature=1, top_k=0, top_p=1, seed=seed, max_tokens=tokens, ignore_eos=free
    )


def talk(case: dict[str, Any]) -> list[dict[str, str]]:
    """The prompt of a schema."""
    return [{"role": "user", "content": f"Write a JSON object that describes {case['about']}."}]


def verdict(found: Completion, schema: Any) -> str:
    """What an answer is: valid, cut by the limit of tokens, or why it is neither."""
    if found.finish_reason == "length":
        return "cut"
    try:
        checker = jsonschema.FormatChecker()
        jsonschema.validate(json.loads(found.text), schema, format_checker=checker)
    except (ValueError, jsonschema.ValidationError) as error:
        return str(error).splitlines()[0][:120]
    return "valid"


def answers(generator: Generator, count: int) -> dict[str, dict[str, int]]:
    """Verdicts of so many answers, by schema."""
    report = {}
    for case in VARIED:
        each = count // len(VARIED)
        drawn = [params(SEED + index, MOST_TOKENS) for index in range(each)]
        found = generator.generate_batch([talk(case)] * each, drawn, schema=case["schema"])
        report[case["name"]] = dict(Counter(verdict(one, case["schema"]) for one in found))
        say(f"{case['name']}: {report[case['name']]}")
    return report


@contextmanager
def timed_work(spent: list[float]) -> Iterator[None]:
    """Adds the seconds that states of constraints work to the only number of a list."""
    names, depth = ("look", "forced", "mask", "follow"), [0]
    own = {name: getattr(ConstraintState, name) for name in names}

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            depth[0] += 1
            started = time.perf_counter()
            try:
                return work(*given)
            finally:
                depth[0] -= 1
                if not depth[0]:
                    spent[0] += time.perf_counter() - started

        return run

    for name, work in own.items():
        setattr(ConstraintState, name, timed(work))
    try:
        yield
    finally:
        for name, work in own.items():
            setattr(ConstraintState, name, work)


def costs(generator: Generator, rounds: int) -> dict[str, Any]:
    """Seconds of a token with a schema and of a free text, and of the schema's own work."""
    held, free, work, passes = [], [], [], []
    for number in range(rounds + 1):
        for at, case in enumerate(VARIED):
            spent = [0.0]
            drawn = params(SEED + number, MOST_TOKENS)
            with timed_work(spent):
                found = generator.chat(talk(case), drawn, schema=case["schema"])
            tokens = found.stats.generated_tokens
            if tokens < 8:
                continue
            time.sleep(PAUSE)
            other = generator.chat(talk(case), params(number * 100 + at, tokens, free=True))
            time.sleep(PAUSE)
            if number:  # the first round compiles and records
                held.append(found.stats.decode_seconds / (tokens - 1))
                free.append(other.stats.decode_seconds / (tokens - 1))
                work.append(spent[0] / tokens)
                passes.append(found.stats.tokens_per_pass)
    return {
        "pairs": len(held),
        "free_seconds": summary(free),
        "held_seconds": summary(held),
        "held_to_free": summary(ratios(held, free)),
        "work_seconds": summary(work),
        "work_to_free": summary(ratios(work, free)),
        "tokens_per_pass": summary(passes),
    }


def main() -> int:
    options_parser = parser(__doc__, "schemas")
    add = options_parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    add("--label", help="of the row; default: the model")
    add("--answers", type=int, default=500, help="to validate; default: %(default)s")
    options = options_parser.parse_args()
    threads = thread_count(options.threads)
    models = models_so_far(options.out)
    label = labelled(options.label or Path(options.model).stem)
    with Generator.load(options.model, threads=threads, speculation=False) as generator:
        generator.compile()
        generator.loaded.model.machine.compile_batches(generator.loaded.progress)
        row: dict[str, Any] = models.setdefault(label, {})
        row["machine"] = machine(threads)
        if options.rounds:
            row.update(costs(generator, options.rounds))
        if options.answers:
            row["answers"] = answers(generator, options.answers)
    save(options.out, {"models": models})
    cells = [with_spread(row[key], 3) for key in ("held_to_free", "work_to_free") if key in row]
    print(table(["model", "token to a free one", "work to a free token"], [[label, *cells]]))
    verdicts: Counter[str] = Counter()
    for each in row.get("answers", {}).values():
        verdicts.update(each)
    print(dict(verdicts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
