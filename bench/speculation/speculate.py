"""Decoding with speculation against decoding token by token: same text, other time.

Texts: code that is given back with one change (the model's own solutions of HumanEval), a text that
is summarised and quoted from (WikiText-2), and chat (the first turns of MT-Bench). Every prompt is
answered on every side in turn, greedily and at a temperature with a fixed seed; answers that differ
between sides end the run. Times are those of tokens after the first.

    python bench/speculation/speculate.py ../shared/data --model smollm2-135m@wheel
    python bench/speculation/speculate.py ../shared/data --model 1.5b.gguf --draft 0.5b.gguf
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.as_cpu import labelled
from shared.common import add_models, models_so_far, parser, save, say, thread_count
from shared.models import DEFAULT_MODEL
from speculation.prompts import KINDS, prompts_of

from sparity_edge import Generator, SamplingParams
from sparity_edge.generation.results import Completion
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import table
from sparity_edge.progress import silent

PLAIN, NGRAMS, BOTH = "token by token", "n-grams", "n-grams and draft model"
WAYS: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0}, "temperature 0.8": {"seed": 1}}


def measure(
    generator: Generator, prompts: Sequence[str], way: Mapping[str, Any], options: Any
) -> dict[str, dict[str, Any]]:
    """Of each side that guesses: its gain over decoding token by token, and what was drafted."""
    draft_model = generator.loaded.draft_model
    sides = [PLAIN, NGRAMS, *([] if draft_model is None else [BOTH])]
    paces = {side: generator.loaded.pace.twin() for side in sides}
    answers: dict[str, list[Completion]] = {side: [] for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for prompt in prompts:
        params = SamplingParams(max_tokens=options.tokens, **{"temperature": 0.8, **way})
        # From here on all but the last token of the prompt is in the KV cache, on every side.
        generator.chat(prompt, replace(params, max_tokens=1))
        found: dict[str, list[Completion]] = {side: [] for side in sides}
        for turn in range(options.rounds):
            for side in sides if turn % 2 else sides[::-1]:
                generator.speculation, generator.loaded.pace = side != PLAIN, paces[side]
                generator.loaded.draft_model = draft_model if side == BOTH else None
                found[side].append(generator.chat(prompt, params))
        if len({each.token_ids for several in found.values() for each in several}) > 1:
            raise SystemExit(f"Answers differ: {prompt[:200]!r}")
        for side, several in found.items():
            answers[side].append(several[-1])
            median = statistics.median(each.stats.decode_seconds for each in several)
            seconds[side].append(max(median, 1e-9))
    generator.loaded.draft_model = draft_model
    return {side: _figures(answers[side], seconds[side], seconds[PLAIN]) for side in sides[1:]}


def _figures(
    answers: Sequence[Completion], seconds: Sequence[float], plain: Sequence[float]
) -> dict[str, Any]:
    stats = [each.stats for each in answers]
    later = sum(each.generated_tokens - 1 for each in stats)
    ratios = [one / other for one, other in zip(plain, seconds, strict=True)]
    return {
        "prompts": len(answers),
        "plain_tokens_a_second": round(later / sum(plain), 2),
        "tokens_a_second": round(later / sum(seconds), 2),
        "gain": round(sum(plain) / sum(seconds), 3),
        "gain_by_prompt": [round(each, 3) for each in ratios],
        "drafted": sum(each.drafted_tokens for each in stats),
        "accepted": sum(each.accepted_tokens for each in stats),
        "tokens_a_pass": round(later / max(1, sum(each.decode_passes for each in stats)), 3),
    }


def main() -> int:
    understood = parser(__doc__, "speculate")
    add_models(understood)
    understood.add_argument("data", type=Path, help="the folder of evaluation text")
    understood.add_argument("--draft", help="a draft model besides, for all models")
    understood.add_argument("--prompts", type=int, default=12, help="of each kind")
    understood.add_argument("--tokens", type=int, default=128, help="of an answer at most")
    understood.add_argument("--texts", nargs="+", default=KINDS, choices=KINDS)
    understood.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    understood.set_defaults(rounds=3)
    options = understood.parse_args()
    if options.quick:
        options.prompts, options.rounds = 3, 1
    threads = thread_count(options.threads)
    report = {"machine": machine(threads), "models": models_so_far(options.out)}
    lines = []
    for model in options.model or [DEFAULT_MODEL]:
        with Generator.load(
            model, threads=threads, max_context=4096, draft=options.draft
        ) as generator:
            generator.compile()
            generator.loaded.model.machine.compile_batches(silent)
            name = labelled(Path(str(generator.info()["source"])).stem)
            of_model = report["models"].setdefault(name, {})
            for kind in options.texts:
                generator.loaded.draft_model, draft = None, generator.loaded.draft_model
                prompts = prompts_of(kind, options.data, options.prompts, generator)
                generator.loaded.draft_model = draft
                for way in options.ways:
                    found = measure(generator, prompts, WAYS[way], options)
                    of_model.setdefault(kind, {})[way] = found
                    say(f"{name}: {kind}, {way}: {found}")
                    lines += [_line(name, kind, way, *each) for each in found.items()]
                    save(options.out, report)
    head = ["model", "text", "", "guesses by", "plain tok/s", "tok/s", "gain", "tokens a pass"]
    head += ["least gain"]
    print(f"\n{table(head, lines)}\n")
    return 0


def _line(name: str, kind: str, way: str, side: str, found: Mapping[str, Any]) -> list[str]:
    speeds = [f"{found[key]:.1f}" for key in ("plain_tokens_a_second", "tokens_a_second")]
    least = f"{min(found['gain_by_prompt']):.2f}"
    gain, per_pass = f"{found['gain']:.2f}", f"{found['tokens_a_pass']:.2f}"
    return [name, kind, way, side, *speeds, gain, per_pass, least]


if __name__ == "__main__":
    sys.exit(main())
