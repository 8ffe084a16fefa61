"""A pass over 2, 4 or 8 tokens against a pass over one: what decoding several together costs.

Sides, interleaved: one token; a token each of so many sequences (`Model.read_together`); so many
tokens of one sequence (`Model.read`, what a draft that is checked or a short prompt takes); and
streaming reads. What is reported is the time of a pass / the time of one token of the same round.

For a CPU without AVX-512 let NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name it (peers.py says how);
rows are then labelled "as NAME" and hold what kernels were compiled to.

    python bench/passes.py --model smollm2-135m@wheel --model model.gguf
    python bench/passes.py --model packed_folder --tokens 1,2,4,8,16
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from shared.common import add_models, models_so_far, parser, save, say, thread_count
from shared.models import DEFAULT_MODEL

from sparity_edge.measure.context import fill_cache
from sparity_edge.measure.decoding import bytes_of_a_token
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, timed, with_spread

DEPTH = 64  # tokens of context
SAMPLE_SECONDS = 0.25  # so many passes as fit into this make a sample
SIDES = {"together": "tokens of as many sequences", "of one": "tokens of one sequence"}


def measure(model: str, options: Any) -> dict[str, Any]:
    """All passes of one model."""
    from sparity_edge import Generator
    from sparity_edge.kernels.simd import cpu
    from sparity_edge.measure.ceiling import Memory

    threads = thread_count(options.threads)
    rounds = 2 if options.quick else options.rounds
    with Generator.load(model, dtype=options.dtype, threads=threads, notify=say) as generator:
        generator.compile()
        own = generator.loaded.model
        own.compile_batches(lambda *_: None)
        memory = Memory(threads, 512 << 20)
        cases = {"one": _case(own, "of one", 1)}
        for count in options.tokens:
            cases |= {f"{side} {count}": _case(own, side, count) for side in options.sides}
        cases["streaming"] = memory.streaming(SAMPLE_SECONDS)
        samples = alternate(cases, rounds, say=lambda text: say(f"{model}: {text}"))
        ceiling = samples.pop("streaming")
        nbytes = bytes_of_a_token(own, DEPTH)
        dtypes = generator.info()["dtypes"]
        memory.close()
    ideal = [nbytes / speed / 1e9 for speed in ceiling]
    return {
        "machine": machine(threads),
        "cpu_name": os.environ.get("NUMBA_CPU_NAME"),  # None: kernels for this machine's own
        "kernels": cpu.chosen(),
        "rounds": rounds,
        "dtypes": dtypes,
        "bytes_a_token": nbytes,
        "streaming_gb_s": summary(ceiling),
        "of_streaming": summary(ratios(ideal, samples["one"])),
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


def show(name: str, report: dict[str, Any]) -> list[list[str]]:
    """The lines of the table for one model."""
    one = 1000 * report["seconds"]["one"]["median"]
    share = f"{report['of_streaming']['median']:.0%} of streaming"
    lines = [[name, "one token", f"{one:.2f}", share]]
    for case, ratio in report["times_one"].items():
        side, _, count = case.rpartition(" ")
        milliseconds = f"{1000 * report['seconds'][case]['median']:.2f}"
        lines.append([name, f"{count} {SIDES[side]}", milliseconds, with_spread(ratio)])
    return lines


def main() -> int:
    result = parser(__doc__, "passes")
    add_models(result)
    result.add_argument("--dtype", help="number format; default: the file's own")
    result.add_argument("--tokens", default="2,4,8", help="default: %(default)s")
    result.add_argument("--sides", default=",".join(SIDES), help="default: %(default)s")
    options = result.parse_args()
    options.tokens = [int(count) for count in options.tokens.split(",")]
    options.sides = options.sides.split(",")
    reports, lines = models_so_far(options.out), []
    for model in options.model or [DEFAULT_MODEL]:
        name = f"{Path(model).stem} {options.dtype}" if options.dtype else Path(model).stem
        if cpu := os.environ.get("NUMBA_CPU_NAME"):
            name += f" as {cpu}"
        reports[name] = measure(model, options)
        save(options.out, {"models": reports})
        lines += show(name, reports[name])
    print(table(["model", "pass", "ms", "times one token (quartiles)"], lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
