"""A pass over 2, 4 or 8 tokens against a pass over one: what decoding several together costs.

Sides: a token each of so many sequences (`Model.read_together`), and so many tokens of one sequence
(`Model.read`: a draft that is checked, or a short prompt). Knows nothing of scripts and files.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.measure.context import fill_cache
from sparity_edge.measure.rounds import alternate, ratios, summary, timed

DEPTH = 64  # tokens of context
SAMPLE_SECONDS = 0.25  # so many passes as fit into this make a sample
SIDES = {"together": "tokens of as many sequences", "of one": "tokens of one sequence"}


def measure_passes(model: Any, counts: list[int], rounds: int, say: Any) -> dict[str, Any]:
    """Seconds of passes over so many tokens, interleaved, and how many times one token that is."""
    cases = {"one": _case(model, "of one", 1)}
    for count in counts:
        cases |= {f"{side} {count}": _case(model, side, count) for side in SIDES}
    samples = alternate(cases, rounds, say=say)
    return {
        "seconds": {name: summary(values) for name, values in samples.items()},
        "times_one": {
            name: summary(ratios(values, samples["one"]))
            for name, values in samples.items()
            if name != "one"
        },
    }


def _case(model: Any, side: str, count: int) -> Any:
    """A function that gives the seconds of a pass over `count` tokens behind DEPTH others."""
    ids = [5 + 7 * index for index in range(count)]
    fill_cache(model, DEPTH, 256)
    caches = [model.kv_cache]
    if side == "together":
        caches = [model.new_kv_cache() for _ in ids]
        for cache in caches:
            cache.copy(model.kv_cache, DEPTH)
            cache.reserve(DEPTH + 256)

    def once() -> None:
        for cache in caches:
            cache.trim(DEPTH)
        if side == "together":
            model.read_together(ids, caches)
        else:
            model.read(ids)

    once()
    passes = max(2, round(SAMPLE_SECONDS / min(timed(once) for _ in range(3))))

    def sample() -> float:
        once()  # recorded anew, where other KV caches were the last
        return timed(lambda: [once() for _ in range(passes)]) / passes

    return sample
