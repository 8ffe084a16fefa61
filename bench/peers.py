"""Decoding and prefill against llama.cpp: the same file, the same threads, interleaved.

llama.cpp has to be built from source, or it is compiled for an old CPU (3 min 38 s on 2 cores;
needs a C++ compiler and CMake):

    CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python '.[bench]'

It always runs in a process of its own: in this Python, or in the one that --peer-python names.
Both sides are timed where tokens go in and logits come out (llama_decode; Model.read), without
sampling. Streaming reads take their turn too. Results of other models stay in the results file.

For a CPU without AVX-512, build llama.cpp with -DGGML_NATIVE=OFF -DGGML_AVX512=OFF and the GGML_...
options of that CPU (pip takes a wheel it has built before, unless --no-cache-dir forbids it), and
let NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name it; its rows are then labelled "as NAME".

    python bench/peers.py --model smollm2-135m@wheel
    python bench/peers.py --synthetic 8b:Q4_0 --depths 0,2048,8192
    python bench/peers.py --model model.gguf --tasks prefill --rounds 3
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from shared.child import LlamaCpp
from shared.common import PAUSE, models_so_far, parser, save, say, thread_count
from shared.models import DEFAULT_MODEL, gguf_of
from shared.names import OURS, PEER
from shared.synthetic import FORMATS, SYNTHETIC, synthetic_gguf

from sparity_edge.measure.context import fill_cache
from sparity_edge.measure.decoding import bytes_of_a_token
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, timed, with_spread

PROMPT = 512  # tokens of a prefill
SAMPLE_SECONDS = 0.8  # decoding takes as many tokens as fit into this
CEILING = "streaming"


class Duel:
    """One model on both sides."""

    def __init__(self, label: str, path: Path, dtype: str | None, options: Any) -> None:
        from sparity_edge import Generator
        from sparity_edge.measure.ceiling import Memory

        threads = thread_count(options.threads)
        self.rounds, self.tokens = options.rounds, options.tokens
        say(f"{label}: loading")
        self.generator = Generator.load(path, dtype=dtype, threads=threads, notify=say)
        self.generator.compile()
        self.model = self.generator.loaded.model
        self.vocab = self.generator.config.vocab_size
        most = self.generator.max_context
        self.depths = sorted({min(depth, most - 2 * PROMPT) for depth in options.depths})
        self.peer = LlamaCpp(options.peer_python)
        positions = max(self.depths) + 2 * PROMPT
        about = self.peer(
            "load", path=str(path), threads=threads, positions=positions, batch=PROMPT
        )
        self.memory = Memory(threads, 512 << 20)
        self.report: dict[str, Any] = {
            "model": label,
            "file": path.name,
            "dtypes": self.generator.info()["dtypes"],
            "cache_dtype": self.model.kv_cache.dtype,  # llama.cpp keeps float16
            "peer": about,
            "machine": machine(threads),
            "cpu_name": os.environ.get("NUMBA_CPU_NAME"),  # None: kernels for this machine's own
            "rounds": self.rounds,
        }

    def close(self) -> None:
        """Free both sides."""
        self.generator.close()
        self.memory.close()
        self.peer("close")
        self.peer.close()

    def prefill(self) -> None:
        """Seconds for PROMPT tokens from an empty cache."""
        ids = [2 + 7 * i % 1000 % (self.vocab - 2) for i in range(PROMPT)]

        def ours() -> float:
            self.model.kv_cache.trim(0)
            return timed(lambda: self.model.read(ids))

        def peer() -> float:
            return float(self.peer("prefill", tokens=ids)["seconds"])

        self.model.kv_cache.trim(0)
        self.model.read(ids[:8])
        self.peer("prefill", tokens=ids[:8])
        samples = alternate(
            {OURS: ours, PEER: peer}, self.rounds, pause=PAUSE, say=self._say("pp512"), warm=False
        )
        self.report["prefill"] = {
            "tokens": PROMPT,
            "seconds": {name: summary(values) for name, values in samples.items()},
            "speed_ratio": summary(ratios(samples[PEER], samples[OURS])),
        }

    def decode(self, depth: int) -> None:
        """Seconds a token at one depth of context."""
        fill_cache(self.model, depth, PROMPT)
        self.peer("fill", depth=depth)
        once = min(timed(lambda: self.model.read([5])) for _ in range(3))
        count = self.tokens or max(4, min(64, round(SAMPLE_SECONDS / once)))
        ids = [3 + 11 * i % 1000 % (self.vocab - 3) for i in range(count)]

        def ours() -> float:
            self.model.kv_cache.trim(depth)

            def read() -> None:
                for token in ids:
                    self.model.read([token])

            return timed(read) / count

        def peer() -> float:
            return float(self.peer("decode", tokens=ids, depth=depth)["seconds"]) / count

        cases = {OURS: ours, CEILING: self.memory.streaming(SAMPLE_SECONDS / 2), PEER: peer}
        samples = alternate(cases, self.rounds, pause=PAUSE, say=self._say(f"tg{count}@{depth}"))
        nbytes = bytes_of_a_token(self.model, depth)
        ceiling = samples.pop(CEILING)
        ideal = [nbytes / speed / 1e9 for speed in ceiling]
        self.report.setdefault("decode", {})[str(depth)] = {
            "tokens": count,
            "bytes_a_token": nbytes,
            "seconds_a_token": {name: summary(values) for name, values in samples.items()},
            "speed_ratio": summary(ratios(samples[PEER], samples[OURS])),
            "streaming_gb_s": summary(ceiling),
            "of_streaming": summary(ratios(ideal, samples[OURS])),
        }

    def _say(self, what: str) -> Any:
        return lambda text: say(f"{self.report['model']} {what}: {text}")


def show(report: dict[str, Any]) -> list[list[str]]:
    """The lines of the table for one model."""
    lines = []
    if part := report.get("prefill"):
        speeds = [
            f"{part['tokens'] / part['seconds'][side]['median']:.0f}" for side in (OURS, PEER)
        ]
        ratio = with_spread(part["speed_ratio"])
        lines.append([report["model"], f"pp{part['tokens']}", *speeds, ratio, ""])
    for depth, part in report.get("decode", {}).items():
        speeds = [f"{1 / part['seconds_a_token'][side]['median']:.1f}" for side in (OURS, PEER)]
        share = (
            f"{part['of_streaming']['median']:.0%} of {part['streaming_gb_s']['median']:.0f} GB/s"
        )
        ratio = with_spread(part["speed_ratio"])
        lines.append([report["model"], f"tg at {depth}", *speeds, ratio, share])
    return lines


def contestants(options: argparse.Namespace) -> dict[str, Path]:
    """Files by label."""
    found = {Path(model).stem: gguf_of(model) for model in options.model}
    for each in options.synthetic:
        name, _, number_format = each.partition(":")
        if name not in SYNTHETIC or number_format not in ("", *FORMATS):
            known = ", ".join(f"{name}:{kind}" for name in SYNTHETIC for kind in FORMATS)
            raise SystemExit(f"--synthetic {each} is none of {known}.")
        for kind in [number_format] if number_format else FORMATS:
            say(f"synthetic {name} in {kind}")
            found[f"synthetic-{name}-{kind}"] = synthetic_gguf(name, kind)
    return found or {DEFAULT_MODEL: gguf_of(DEFAULT_MODEL)}


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    result = parser(__doc__, "peers")
    result.add_argument("--model", action="append", default=[], help="a GGUF file or an alias")
    result.add_argument(
        "--synthetic", action="append", default=[], metavar="NAME[:FORMAT]",
        help=f"random weights: {', '.join(SYNTHETIC)} in {' or '.join(FORMATS)}",
    )  # fmt: skip
    result.add_argument("--dtype", help="our number format; default: the file's own")
    result.add_argument("--peer-python", default=sys.executable, metavar="PATH")
    result.add_argument("--tasks", default="decode,prefill", help="default: %(default)s")
    result.add_argument(
        "--depths", "--depth", default="0", help="tokens of context, such as 0,8192"
    )
    result.add_argument("--tokens", type=int, help="of a sample; default: what fits into 0.8 s")
    return result


def main() -> int:
    options = build_parser().parse_args()
    options.depths = [int(depth) for depth in options.depths.split(",")]
    options.rounds = 3 if options.quick else options.rounds
    tasks = options.tasks.split(",")
    known = models_so_far(options.out)
    lines = []
    for label, path in contestants(options).items():
        name = f"{label} {options.dtype}" if options.dtype else label
        if cpu := os.environ.get("NUMBA_CPU_NAME"):
            name += f" as {cpu}"
        duel = Duel(name, path, options.dtype, options)
        try:
            if "decode" in tasks:
                for depth in duel.depths:
                    duel.decode(depth)
            if "prefill" in tasks:
                duel.prefill()
        finally:
            duel.close()
        merged = {**known.get(name, {}), **duel.report}
        if "decode" in duel.report:
            merged["decode"] = {**known.get(name, {}).get("decode", {}), **duel.report["decode"]}
        known[name] = merged
        save(options.out, {"models": known})
        lines += show(duel.report)
    head = ["model", "task", "ours tok/s", "llama.cpp tok/s", "ratio (quartiles)", "bytes/token"]
    print(table(head, lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
