"""Our guesses against llama.cpp's: the same files, prompts and threads, greedy, interleaved.

llama.cpp guesses from the text before (its n-gram kinds of drafts) and with a draft model, each in
a llama-server of its own, built for this CPU (GGML_NATIVE). Every prompt is answered by every side
in turn, once its tokens are in the KV cache of all; times are those of tokens after the first. The
texts of both may part, since the two round otherwise: speeds are compared, not texts.

Servers and our model are in memory together: about 7 GB for a 1.5B with a draft model of 0.5B.

    python bench/speculation/peer.py ../shared/data --program build/bin/llama-server \
        --model 1.5b.gguf --draft 0.5b.gguf
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages.speculation import peer_table
from shared.as_cpu import labelled
from shared.common import PAUSE, models_so_far, parser, save, say, thread_count
from shared.models import gguf_of
from speculation.llama_server import LlamaServer
from speculation.prompts import KINDS, prompts_of

from sparity_edge import Generator, SamplingParams
from sparity_edge.measure.machine import machine
from sparity_edge.progress import silent

CONTEXT = 4096
PLAIN, NGRAMS, BOTH = "ours, token by token", "ours, n-grams", "ours, n-grams and draft model"
# Of llama.cpp's kinds that look at the text before, with the lengths that they have by themselves
# and with shorter ones, which cost a CPU less where they are wrong.
THEIRS = {
    "llama.cpp, token by token": ("--spec-type", "none"),
    "llama.cpp, ngram-simple": ("--spec-type", "ngram-simple"),
    "llama.cpp, ngram-simple 3 to 7": (
        "--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "3",
        "--spec-ngram-simple-size-m", "7",
    ),
    "llama.cpp, ngram-map-k": ("--spec-type", "ngram-map-k"),
    "llama.cpp, ngram-cache": ("--spec-type", "ngram-cache"),
}  # fmt: skip
WITH_DRAFT = "llama.cpp, draft model"
Ask = Callable[[Sequence[int], int], Mapping[str, float]]


def sides_of(generator: Generator) -> dict[str, Ask]:
    """Our own sides, by name; each has a pace of its own, which learns what its guesses are worth.

    Args:
        generator: the model, perhaps with a draft model.
    """
    draft_model = generator.loaded.draft_model

    def side(name: str) -> Ask:
        pace = generator.loaded.pace.twin()

        def ask(ids: Sequence[int], tokens: int) -> Mapping[str, float]:
            generator.speculation, generator.loaded.pace = name != PLAIN, pace
            generator.loaded.draft_model = draft_model if name == BOTH else None
            params = SamplingParams(temperature=0, max_tokens=tokens)
            stats = generator.generate(ids, params).stats
            return {
                "tokens": stats.generated_tokens - 1,
                "seconds": stats.decode_seconds,
                "drafted": stats.drafted_tokens,
                "accepted": stats.accepted_tokens,
            }

        return ask

    names = [PLAIN, NGRAMS, *([] if draft_model is None else [BOTH])]
    return {name: side(name) for name in names}


def measure(
    sides: Mapping[str, Ask], prompts: Sequence[Sequence[int]], tokens: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Speed of every side over the prompts.

    Args:
        sides: what is asked, by name.
        prompts: token ids.
        tokens: of an answer at most.
        rounds: answers of each side to each prompt, of which the median counts.
    """
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in sides}
    for ids in prompts:
        for ask in sides.values():
            ask(ids, 1)
        answers: dict[str, list[Mapping[str, float]]] = {name: [] for name in sides}
        for turn in range(rounds):
            for name in list(sides)[:: -1 if turn % 2 else 1]:
                time.sleep(PAUSE)
                answers[name].append(sides[name](ids, tokens))
        for name, several in answers.items():
            median = statistics.median(each["seconds"] / max(1, each["tokens"]) for each in several)
            last = several[-1]
            found[name].append({**last, "seconds": median * last["tokens"]})
    return {name: _figures(each) for name, each in found.items()}


def _figures(answers: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    total = {key: sum(each[key] for each in answers) for key in answers[0]}
    return {
        "prompts": len(answers),
        "tokens": int(total["tokens"]),
        "tokens_a_second": round(total["tokens"] / max(total["seconds"], 1e-9), 2),
        "drafted": int(total["drafted"]),
        "accepted": int(total["accepted"]),
    }


def main() -> int:
    understood = parser(__doc__, "speculation_peer")
    add = understood.add_argument
    add("data", type=Path, help="the folder of evaluation text")
    add("--program", type=Path, required=True, help="llama-server")
    add("--model", required=True, help="a GGUF file")
    add("--draft", help="a smaller one of the same vocabulary, for both programs")
    add("--prompts", type=int, default=9, help="of each kind")
    add("--tokens", type=int, default=128, help="of an answer at most")
    add("--texts", nargs="+", default=KINDS, choices=KINDS)
    add("--theirs", nargs="+", default=list(THEIRS), choices=THEIRS, help="default: all")
    understood.set_defaults(rounds=3)
    options = understood.parse_args()
    if options.quick:
        options.prompts, options.rounds = 3, 1
    threads, file = thread_count(options.threads), gguf_of(options.model)
    theirs = {name: THEIRS[name] for name in options.theirs}
    if options.draft:
        draft = ("--spec-type", "draft-simple", "--spec-draft-model", str(gguf_of(options.draft)))
        theirs[WITH_DRAFT] = draft
    report = {"machine": machine(threads), "models": models_so_far(options.out)}
    of_model = report["models"].setdefault(labelled(file.stem), {})
    with contextlib.ExitStack() as stack:
        loaded = Generator.load(file, threads=threads, max_context=CONTEXT, draft=options.draft)
        generator = stack.enter_context(loaded)
        generator.compile()
        generator.loaded.model.machine.compile_batches(silent)
        ours = sides_of(generator)
        asked = {
            kind: [
                generator.encode([{"role": "user", "content": each}])
                for each in prompts_of(kind, options.data, options.prompts, generator)
            ]
            for kind in options.texts
        }
        servers = {
            name: stack.enter_context(LlamaServer(options.program, file, threads, CONTEXT, each))
            for name, each in theirs.items()
        }
        sides = {**ours, **{name: each.answer for name, each in servers.items()}}
        for kind, prompts in asked.items():
            of_model[kind] = measure(sides, prompts, options.tokens, options.rounds)
            say(f"{file.stem}: {kind}: {of_model[kind]}")
            save(options.out, report)
    print(f"\n{peer_table({'speculation_peer': report})}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
