"""The LM head behind its screen: are its logits those that matter, and what does it save?

Positions of held-out texts, whose hidden states go through the full head and through the screen:
the best token, the best 40, and how many logits were computed; the best token also with margins
that are one spread less. Then decoding with the screen and without it, interleaved, greedy and
sampled.

    python bench/head/screen.py --text ../shared/data/wikitext2/wiki.test.raw --text chats.jsonl
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.common import models_so_far, parser, save, say, thread_count

from converters.calibration.windows import read_documents
from sparity_edge import Generator, SamplingParams
from sparity_edge.arrays import Floats, rows
from sparity_edge.kernels.active_list import channels
from sparity_edge.kernels.program import screened
from sparity_edge.kernels.screen import BEST, LEAST, Candidates
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import table
from sparity_edge.model.layer_run import LayerRun

TOP = 40
WANTED = {"greedy": 1, "sampled": TOP}
PARAMS: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0}, "sampled": {"seed": 0}}
PROMPT = "Write a short story about a lighthouse keeper."


def main() -> int:
    options = _options()
    threads = thread_count(options.threads)
    report: dict[str, Any] = {"machine": machine(threads), "models": models_so_far(options.out)}
    report["protocol"] = {"best": BEST, "least": LEAST, "top": TOP, "window": options.window}
    lines = []
    for model in options.models:
        with Generator.load(model, threads=threads) as generator:
            if generator.loaded.model.screen is None:
                say(f"{model}: a screen would not pay; left out.")
                continue
            name = Path(str(generator.info()["source"])).stem
            generator.compile()
            found: dict[str, Any] = {"texts": {}}
            for path in options.text:
                windows = _windows(generator, path, options)
                found["texts"][path.name] = agreement(generator, windows)
            found["speed"] = speed(generator, options.rounds, options.tokens)
            report["models"][name] = found
            lines += [_line(name, text, kind, found) for text in found["texts"] for kind in WANTED]
        save(options.out, report)
    head = ["model", "text", "", "positions", "best equal (one spread less)", "of top 40"]
    head += ["computed", "screened / full"]
    print(f"\n{table(head, lines)}\n")
    return 0


def agreement(generator: Generator, windows: Any) -> dict[str, Any]:
    """What the screen finds at every position of some windows, and how large margins had to be."""
    model = generator.loaded.model
    with LayerRun(model, windows) as run:
        for layer in range(run.layers):
            run.run(layer, lambda _: None)
        residual = run.residual.reshape(-1, model.config.hidden_size)
    mean = (residual**2).mean(axis=1, keepdims=True)
    states = residual / np.sqrt(mean + model.config.rms_norm_eps) * model.decoder.norm
    return {kind: _positions(generator, states, count) for kind, count in WANTED.items()}


def _positions(generator: Generator, states: Floats, count: int) -> dict[str, Any]:
    model = generator.loaded.model
    head = model.decoder.lm_head
    h, whole = rows(1, states.shape[1]), rows(1, model.config.vocab_size)
    full = model.machine.prepare(lambda ops: ops.linear(h, head, whole))
    sides = [_Screened(generator, h, count, less) for less in (0.0, 1.0)]
    for state in states:
        h[0] = state
        full(False)
        for side in sides:
            side.look(whole[0])
    positions, (found, with_less) = len(states), sides
    return {
        "positions": positions,
        "best_equal": found.equal,
        "best_equal_one_spread_less": with_less.equal,
        "of_top": found.held / (count * positions),
        "computed": {
            "mean": float(np.mean(found.computed)),
            "p50": float(np.median(found.computed)),
            "p99": float(np.quantile(found.computed, 0.99)),
        },
    }


class _Screened:
    """What a screen finds, position by position.

    Args:
        generator: with a screen.
        h: (1, hidden), the state that is looked at.
        count: of the best logits that are wanted.
        less: spreads that margins are less than they are in use.
    """

    def __init__(self, generator: Generator, h: Floats, count: int, less: float) -> None:
        model = generator.loaded.model
        made, head = model.screen, model.decoder.lm_head
        assert made is not None
        screen = model.machine.screen(made.projection, made.rows, made.errors)
        layout = made.rows.layout
        self._count, self._asked = count, Candidates(layout.outputs, layout.inputs)
        self._asked.ask(count, np.zeros(0, dtype=np.int64))
        self._out = rows(1, layout.outputs)
        with patch.multiple(screened, BEST=BEST - less, LEAST=LEAST - less):
            self._run = model.machine.prepare(
                lambda ops: ops.screened(h, head, screen, self._asked, self._out)
            )
        self.equal, self.held, self.computed = 0, 0, list[float]()

    def look(self, whole: Floats) -> None:
        """Count what is there of the logits (vocab_size,)."""
        self._run(False)
        found, out = channels(self._asked.found), self._out[0]
        best = np.argpartition(-whole, self._count)[: self._count]
        self.held += len(np.intersect1d(best, found, assume_unique=True))
        self.equal += int(found[out[found].argmax()] == whole.argmax())
        self.computed.append(len(found) / len(whole))


def speed(generator: Generator, rounds: int, tokens: int) -> dict[str, Any]:
    """Seconds of a token with the screen and without it, medians of interleaved rounds."""
    full = generator.twin()
    full.loaded.model.set_screen(None)
    ids = generator.encode([{"role": "user", "content": PROMPT}])
    times: dict[str, dict[str, list[float]]] = {kind: {} for kind in PARAMS}
    with full:
        for number in range(rounds + 1):  # the first one records and warms up
            for kind, how in PARAMS.items():
                for side, each in (("screened", generator), ("full", full)):
                    params = SamplingParams(max_tokens=tokens, ignore_eos=True, **how)
                    gaps = _gaps(each, ids, params)
                    if number:
                        times[kind].setdefault(side, []).append(gaps)
    return {
        kind: {
            **{side: float(np.median(each)) for side, each in sides.items()},
            "ratio": float(np.median(np.divide(sides["full"], sides["screened"]))),
        }
        for kind, sides in times.items()
    }


def _gaps(generator: Generator, ids: Sequence[int], params: SamplingParams) -> float:
    """The median time of a token."""
    generator.speculation = False
    marks = [time.perf_counter() for _ in generator.stream(ids, params)]
    return float(np.median(np.diff(marks)[2:]))


def _windows(generator: Generator, path: Path, options: argparse.Namespace) -> Any:
    text = "\n\n".join(read_documents([path]))
    ids = generator.tokenizer.encode(text, add_special_tokens=False)
    count = options.positions // options.window
    starts = np.linspace(0, len(ids) - options.window, count).astype(int)
    return np.array([ids[start : start + options.window] for start in starts], dtype=np.int64)


def _line(name: str, text: str, kind: str, found: dict[str, Any]) -> list[str]:
    here = found["texts"][text][kind]
    return [
        name,
        text,
        kind,
        str(here["positions"]),
        f"{here['best_equal']} ({here['best_equal_one_spread_less']})",
        f"{here['of_top']:.4%}",
        f"{here['computed']['mean']:.1%}",
        f"{found['speed'][kind]['ratio']:.2f}x as fast",
    ]


def _options() -> argparse.Namespace:
    result = parser(__doc__, "screen")
    result.add_argument("--model", action="append", dest="models", default=[], help="to measure")
    result.add_argument(
        "--text", action="append", type=Path, required=True, help="held-out, .txt or .jsonl"
    )
    result.add_argument("--positions", type=int, default=2048, help="default: %(default)s")
    result.add_argument("--window", type=int, default=256, help="tokens; default: %(default)s")
    result.add_argument("--tokens", type=int, default=64, help="decoded; default: %(default)s")
    options = result.parse_args()
    options.models = options.models or ["smollm2-135m@wheel"]
    if options.quick:
        options.positions, options.rounds, options.tokens = 512, 3, 16
    return options


if __name__ == "__main__":
    raise SystemExit(main())
