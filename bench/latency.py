"""What a user waits for: first token, each further token, memory, and a start of the command.

TTFT is the time to the first token of a prompt of 512 tokens, TPOT the time of each of the 128
after it, both through Generator.stream with sampling; then TPOT at other depths of context. The
share of the ceiling is bytes of a token / streaming speed / TPOT. A warm start finds compiled
kernels and the packed model, a cold one has to compile (NUMBA_CACHE_DIR is empty); both find the
bytecode of Python, as installed packages have it. Passes over 2, 4 and 8 tokens are compared with
one over a single token. With --as-cpu, or NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, kernels are those
of another CPU, and rows are labelled "as NAME".

    python bench/latency.py
    python bench/latency.py --model model.gguf --contexts 0,2048,8192 --starts 0
"""

from __future__ import annotations

import compileall
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shared.as_cpu import labelled
from shared.common import add_models, models_so_far, parser, save, say, thread_count
from shared.models import DEFAULT_MODEL
from shared.passes import SIDES, measure_passes

from sparity_edge.measure.context import fill_cache
from sparity_edge.measure.decoding import bytes_of_a_token, time_sequence
from sparity_edge.measure.fresh import in_fresh_process, peak_memory
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, with_spread

PROMPT, ANSWER = 512, 128  # tokens, as in llama-bench's pp512 and tg128


def measure_prompt(generator: Any, memory: Any, rounds: int) -> dict[str, Any]:
    """pp512 and tg128, interleaved with streaming reads."""
    first: list[float] = []
    vocab = generator.config.vocab_size

    def ours() -> float:
        # Another beginning each time, so that nothing in the cache can be used again.
        ids = [2 + (len(first) + 7 * i) % 1000 % (vocab - 2) for i in range(PROMPT)]
        found = time_sequence(generator, ids, ANSWER - 1)
        first.append(found.first)
        return statistics.fmean(found.later)

    result = with_ceiling(generator, memory, ours, PROMPT + ANSWER // 2, rounds, "pp512/tg128")
    result["ttft_seconds"] = summary(first[-rounds:])
    result["prompt_tokens_s"] = summary([PROMPT / value for value in first[-rounds:]])
    return result


def measure_context(generator: Any, memory: Any, depth: int, rounds: int) -> dict[str, Any]:
    """TPOT behind `depth` tokens of context."""
    model = generator.loaded.model
    fill_cache(model, depth, ANSWER + 1)

    def ours() -> float:
        # All but the last token are found in the cache.
        return statistics.fmean(time_sequence(generator, [1] * (depth + 1), ANSWER - 1).later)

    return with_ceiling(generator, memory, ours, depth + ANSWER // 2, rounds, f"tg128@{depth}")


def with_ceiling(
    generator: Any, memory: Any, ours: Any, depth: int, rounds: int, what: str
) -> dict[str, Any]:
    """TPOT, and its share of what the memory could do in the same round."""
    cases = {"answer": ours, "streaming": memory.streaming(0.3)}
    samples = alternate(cases, rounds, say=lambda text: say(f"{what}: {text}"))
    nbytes = bytes_of_a_token(generator.loaded.model, depth)
    ideal = [nbytes / speed / 1e9 for speed in samples["streaming"]]
    return {
        "bytes_a_token": nbytes,
        "tpot_seconds": summary(samples["answer"]),
        "tokens_s": summary([1 / value for value in samples["answer"]]),
        "streaming_gb_s": summary(samples["streaming"]),
        "of_streaming": summary(ratios(ideal, samples["answer"])),
    }


def start_seconds(
    model: str, dtype: str | None, threads: int, kernels: str | None
) -> tuple[float, float]:
    """From the start of the command to the first byte of its answer, and its CPU seconds in all."""
    command = [sys.executable, "-m", "sparity_edge", "generate", model, "--prompt", "Once upon a"]
    command += ["--max-tokens", "1", "--temperature", "0", "--threads", str(threads)]
    command += ["--dtype", dtype] if dtype else []
    import sparity_edge

    package = Path(sparity_edge.__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(package)}  # it need not be installed
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if kernels is not None:
        environment["NUMBA_CACHE_DIR"] = kernels
    before = _cpu_of_children()
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        first = process.stdout.read(1)
        seconds = time.perf_counter() - start
    if not first:
        raise SystemExit(f"{' '.join(command)} said nothing.")
    return seconds, _cpu_of_children() - before


def _cpu_of_children() -> float:
    times = os.times()  # zeros on Windows
    return times.children_user + times.children_system


def _write_bytecode() -> None:
    """Compile our own modules to bytecode, as pip does with what it installs."""
    for package in ("sparity_edge", "converters"):
        folder = importlib.import_module(package).__path__[0]
        compileall.compile_dir(folder, quiet=2)


def measure_starts(model: str, dtype: str | None, threads: int, count: int) -> dict[str, Any]:
    """First token after the start of the process."""
    _write_bytecode()
    with tempfile.TemporaryDirectory() as kernels:
        cold, cpu = start_seconds(model, dtype, threads, kernels)
        say(f"cold start: {cold:.1f} s, {cpu:.1f} CPU s")
        start_seconds(model, dtype, threads, kernels)
        warm = [start_seconds(model, dtype, threads, kernels)[0] for _ in range(count)]
    say(f"warm start: {statistics.median(warm):.2f} s")
    return {
        "cold_seconds": summary([cold]),
        "cold_cpu_seconds": summary([cpu]),
        "warm_seconds": summary(warm),
    }


def measure(model: str, options: Any) -> dict[str, Any]:
    """Everything about one model."""
    from sparity_edge import Generator
    from sparity_edge.measure.ceiling import Memory

    threads, dtype = thread_count(options.threads), options.dtype
    rounds = 2 if options.quick else options.rounds
    starts = min(options.starts, 2) if options.quick else options.starts
    report: dict[str, Any] = {"machine": machine(threads), "rounds": rounds}
    generator = Generator.load(model, dtype=dtype, threads=threads, notify=say)
    path = generator.path
    with generator:
        generator.compile()
        report["dtypes"] = generator.info()["dtypes"]
        memory = Memory(threads, 512 << 20)
        report["prompt"] = measure_prompt(generator, memory, rounds)
        most = generator.max_context - ANSWER - 2
        report["contexts"] = {
            str(depth): measure_context(generator, memory, depth, rounds)
            for depth in sorted({min(depth, most) for depth in options.contexts})
        }
        memory.close()
        if options.passes:
            report["passes"] = _passes(generator, options.passes, rounds)
    del generator, memory
    report["memory_bytes"] = in_fresh_process(peak_memory, path, threads, PROMPT)
    if starts:
        report["starts"] = measure_starts(model, dtype, threads, starts)
    return report


def _passes(generator: Any, counts: list[int], rounds: int) -> dict[str, Any]:
    model = generator.loaded.model
    model.machine.compile_batches(lambda *_: None)
    return measure_passes(model, counts, rounds, lambda text: say(f"passes: {text}"))


def show(name: str, report: dict[str, Any]) -> str:
    """Tables for one model."""
    prompt = report["prompt"]
    parts = {f"pp{PROMPT}/tg{ANSWER}": prompt}
    parts |= {f"tg{ANSWER} at {depth}": part for depth, part in report["contexts"].items()}
    lines = []
    for what, part in parts.items():
        tpot = {key: 1000 * part["tpot_seconds"][key] for key in ("q1", "median", "q3")}
        ceiling = f"{part['streaming_gb_s']['median']:.0f} GB/s"
        lines.append(
            [what, with_spread(part["tokens_s"], 1), with_spread(tpot),
             f"{part['of_streaming']['median']:.0%} of {ceiling}"]
        )  # fmt: skip
    text = [f"{name} ({', '.join(report['dtypes'])}), {report['machine']['threads']} threads\n"]
    text.append(table(["task", "tok/s", "TPOT ms", "bytes/token"], lines))
    ttft = {key: 1000 * prompt["ttft_seconds"][key] for key in ("q1", "median", "q3")}
    facts = [["TTFT of 512 tokens, ms", with_spread(ttft, 0)]]
    used = {key: value / 1e6 for key, value in report["memory_bytes"].items()}
    facts.append(["peak memory, MB", f"{used['peak']:.0f}"])
    facts.append(["... beyond weights and cache", f"{used['beyond_weights_and_cache']:.0f}"])
    for case, times in report.get("passes", {}).get("times_one", {}).items():
        side, _, count = case.rpartition(" ")
        facts.append([f"a pass over {count} {SIDES[side]} / over one", with_spread(times)])
    for kind, figure in report.get("starts", {}).items():
        facts.append([f"first token after process start, {_unit(kind)}", with_spread(figure)])
    return "\n".join(["\n".join(text), "", table(["", "median (quartiles)"], facts), ""])


def _unit(kind: str) -> str:
    return kind.replace("_cpu_seconds", ", CPU seconds of all").replace("_", " in ")


def main() -> int:
    result = parser(__doc__, "latency")
    add_models(result)
    result.add_argument("--dtype", help="number format; default: the file's own")
    result.add_argument("--contexts", default="0,2048,8192", help="default: %(default)s")
    result.add_argument("--starts", type=int, default=5, help="warm starts; 0: no starts at all")
    result.add_argument("--passes", default="2,4,8", help="tokens; '': none; default: %(default)s")
    options = result.parse_args()
    options.passes = [int(count) for count in options.passes.split(",") if count]
    options.contexts = [int(depth) for depth in options.contexts.split(",")]
    reports = models_so_far(options.out)
    for model in options.model or [DEFAULT_MODEL]:
        name = f"{Path(model).stem} {options.dtype}" if options.dtype else Path(model).stem
        name = labelled(name)
        reports[name] = measure(model, options)
        save(options.out, {"models": reports})
        print(show(name, reports[name]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
