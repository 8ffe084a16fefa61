"""One GGUF file on our side and on its peers': decoding and prefill, interleaved in one run.

All are timed where tokens go in and logits come out (llama_decode; Model.read), without sampling;
streaming reads take their turn too. Knows neither where files come from nor where results go.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.child import Child, IkLlamaCpp, LlamaCpp
from shared.common import PAUSE, say, thread_count
from shared.names import FORK, OURS, PEER

from sparity_edge.measure.context import fill_cache
from sparity_edge.measure.decoding import bytes_of_a_token
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import (
    Samples,
    alternate,
    ratios,
    summary,
    table,
    timed,
    with_spread,
)

PROMPT = 512  # tokens of a prefill, and of a batch of the peers
SAMPLE_SECONDS = 0.8  # decoding takes as many tokens as fit into this
CEILING = "streaming"


def add_peers(result: argparse.ArgumentParser) -> None:
    """The options that say where the peers are."""
    add = result.add_argument
    add("--peer-python", default=sys.executable, metavar="PATH", help="that has llama-cpp-python")
    add("--ik", type=Path, metavar="FOLDER", help="a build of ik_llama.cpp, the second peer")
    add("--tokens", type=int, help="of a sample; default: what fits into 0.8 s")


class Duel:
    """One model on all sides.

    Args:
        label: of its report.
        path: the GGUF file.
        dtype: our number format; None: the file's own.
        options: with threads, rounds, those of `add_peers`, and depths in tokens of context.
    """

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
        self.peers: dict[str, Child] = {PEER: LlamaCpp(options.peer_python)}
        if options.ik:
            self.peers[FORK] = IkLlamaCpp(options.ik)
        about = self._ask_all(
            "load", path=str(path), threads=threads, positions=max(self.depths) + 2 * PROMPT,
            batch=PROMPT,
        )  # fmt: skip
        self.memory = Memory(threads, 512 << 20)
        self.report: dict[str, Any] = {
            "model": label,
            "file": path.name,
            "dtypes": self.generator.info()["dtypes"],
            "cache_dtype": self.model.kv_cache.dtype,  # the peers keep float16
            "peer": about.pop(PEER),
            "peers": about,
            "machine": machine(threads),
            "cpu_name": os.environ.get("NUMBA_CPU_NAME"),  # None: kernels for this machine's own
            "rounds": self.rounds,
        }

    def close(self) -> None:
        """Free all sides."""
        self.generator.close()
        self.memory.close()
        for peer in self.peers.values():
            peer("close")
            peer.close()

    def prefill(self, tokens: int = PROMPT) -> None:
        """Seconds for a prompt from an empty cache."""
        ids = [2 + 7 * i % 1000 % (self.vocab - 2) for i in range(tokens)]

        def ours() -> float:
            self.model.kv_cache.trim(0)
            return timed(lambda: self.model.read(ids))

        def sample(peer: Child) -> float:
            return float(peer("prefill", tokens=ids)["seconds"])

        self.model.kv_cache.trim(0)
        self.model.read(ids[:8])
        self._ask_all("prefill", tokens=ids[:8])
        cases = {OURS: ours, **self._each(sample)}
        what = f"pp{tokens}"
        samples = alternate(cases, self.rounds, pause=PAUSE, say=self._say(what), warm=False)
        part = {"tokens": tokens, "seconds": _summaries(samples), **_compared(samples)}
        if tokens == PROMPT:
            self.report["prefill"] = part
        else:
            self.report.setdefault("prompts", {})[str(tokens)] = part

    def decode(self, depth: int) -> None:
        """Seconds a token at one depth of context."""
        fill_cache(self.model, depth, PROMPT)
        self._ask_all("fill", depth=depth)
        once = min(timed(lambda: self.model.read([5])) for _ in range(3))
        count = self.tokens or max(4, min(64, round(SAMPLE_SECONDS / once)))
        ids = [3 + 11 * i % 1000 % (self.vocab - 3) for i in range(count)]

        def ours() -> float:
            self.model.kv_cache.trim(depth)

            def read() -> None:
                for token in ids:
                    self.model.read([token])

            return timed(read) / count

        def sample(peer: Child) -> float:
            return float(peer("decode", tokens=ids, depth=depth)["seconds"]) / count

        ceiling = self.memory.streaming(SAMPLE_SECONDS / 2)
        cases = {OURS: ours, CEILING: ceiling, **self._each(sample)}
        samples = alternate(cases, self.rounds, pause=PAUSE, say=self._say(f"tg{count}@{depth}"))
        nbytes = bytes_of_a_token(self.model, depth)
        speeds = samples.pop(CEILING)
        ideal = [nbytes / speed / 1e9 for speed in speeds]
        self.report.setdefault("decode", {})[str(depth)] = {
            "tokens": count,
            "bytes_a_token": nbytes,
            "seconds_a_token": _summaries(samples),
            **_compared(samples),
            "streaming_gb_s": summary(speeds),
            "of_streaming": summary(ratios(ideal, samples[OURS])),
        }

    def _ask_all(self, do: str, **arguments: Any) -> dict[str, dict[str, Any]]:
        return {name: peer(do, **arguments) for name, peer in self.peers.items()}

    def _each(self, sample: Callable[[Child], float]) -> dict[str, Callable[[], float]]:
        return {name: lambda peer=peer: sample(peer) for name, peer in self.peers.items()}

    def _say(self, what: str) -> Any:
        return lambda text: say(f"{self.report['model']} {what}: {text}")


def _summaries(samples: Samples) -> dict[str, Any]:
    return {name: summary(values) for name, values in samples.items()}


def _compared(samples: Samples) -> dict[str, Any]:
    """How many times as fast as llama.cpp we are, and as each further peer."""
    quotients = {
        name: summary(ratios(values, samples[OURS]))
        for name, values in samples.items()
        if name != OURS
    }
    return {"speed_ratio": quotients.pop(PEER), "against": quotients}


def merged(former: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """A report over an older one of the same model; what was not measured anew stays."""
    result = {**former, **report}
    for part in ("decode", "prompts"):
        if part in report:
            result[part] = {**former.get(part, {}), **report[part]}
    return result


def show(reports: list[dict[str, Any]]) -> str:
    """The table of some reports, with a column for each peer that took part."""
    peers = [PEER, *([FORK] if any(FORK in report["peers"] for report in reports) else [])]
    lines = [line for report in reports for line in _lines(report, peers)]
    ratio = [f"/ {peer} (quartiles)" for peer in peers]
    speeds = [f"{side} tok/s" for side in (OURS, *peers)]
    return table(["model", "task", *speeds, *ratio, "bytes/token"], lines)


def _lines(report: dict[str, Any], peers: list[str]) -> list[list[str]]:
    prompts = [report[key] for key in ("prefill",) if key in report]
    lines = []
    for part in [*prompts, *report.get("prompts", {}).values()]:
        cells = _cells(part, part["seconds"], part["tokens"], peers)
        lines.append([report["model"], f"pp{part['tokens']}", *cells, ""])
    for depth, part in report.get("decode", {}).items():
        ceiling = part["streaming_gb_s"]["median"]
        share = f"{part['of_streaming']['median']:.0%} of {ceiling:.0f} GB/s"
        cells = _cells(part, part["seconds_a_token"], 1, peers)
        lines.append([report["model"], f"tg at {depth}", *cells, share])
    return lines


def _cells(
    part: dict[str, Any], seconds: dict[str, Any], tokens: int, peers: list[str]
) -> list[str]:
    """Speeds of all sides, then our ratio to each peer."""
    quotients = {PEER: part["speed_ratio"], **part["against"]}
    speeds = [
        f"{tokens / seconds[side]['median']:.1f}" if side in seconds else ""
        for side in (OURS, *peers)
    ]
    return speeds + [with_spread(quotients[each]) if each in quotients else "" for each in peers]
