"""KL against speed: our number formats with the dial, and llama.cpp's ladder of quantisations.

One model on both sides in one run. Every row has its KL to the same predictions, those of our f32
model, on the same windows of text with all positions sparse (but the first four of a window), and
the speed of reading the same tokens one at a time behind the same prompt, all rows interleaved.
llama.cpp quantises its files itself, from the F32 file of the model; that file's own KL
says how far the two programs agree.

The f32 model is the GGUF file with its numbers written out. So a format that the file itself is in
loses nothing on either side (SmolLM2's wheel is Q4_1: its Q4_1 and our int4 hold the file's very
numbers), and the comparison is made a second time without those rows: then all 4-bit numbers are
made anew on both sides, ours in groups of 64.

Quality is kept from run to run; so are rounds of speed, as long as the rows stay the same. A run
stops after --seconds and goes on when it is called again; --again speed measures speed anew.

    python bench/ladder.py --text ../shared/data/wikitext2/wiki.test.raw
    python bench/ladder.py --text ../shared/data/wikitext2/wiki.test.raw --again speed

A larger model: files are made from the file itself (peers.py --kinds makes the same), KL is to our
own reading of it, and plans stand in packs of their own. A model of 1.5B takes 16 GB so.

    python bench/ladder.py --model model-Q4_K_M.gguf --label 1.5B --base file --reference file \\
        --kinds Q8_0 Q6_K Q5_K_M Q4_K_M Q4_0 Q3_K_M Q2_K --dense file --dial file --no-regrouped \\
        --packs ./mixed --text wiki.test.raw auto:0.25 centred@0.5 centred@0.7 chess@0.5
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from pages.fronts import made_anew, show, timed_rows, verdict
from shared.child import LlamaCpp
from shared.common import PAUSE, parser, save, say, thread_count
from shared.ladder_ours import OurSide, our_sides
from shared.ladder_peer import LADDER, PeerSide, ladder_files
from shared.models import DEFAULT_MODEL, FILE, gguf_of
from shared.rows import bars, kept

from sparity_edge import Generator
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate
from sparity_edge.quality.divergence import divergences
from sparity_edge.system.folders import cache_root

DENSE = ("f32", "bf16", "int8", "int4")
DIAL = ("int8", "int4")
SETTINGS = (
    "auto:0.1", "auto:0.25", "auto:0.4", "centred@0.3", "centred@0.5", "centred@0.7", "cats@0.3",
    "cats@0.5", "chess@0.3", "chess@0.5", "teal@0.25", "teal@0.4",
)  # fmt: skip
QUICK: dict[str, Any] = {
    "kinds": ["F32", "Q8_0", "Q5_0", "Q4_1", "Q4_0", "Q2_K"],
    "dense": ["f32", "int8", "int4"],
    "settings": ["auto:0.25", "auto:0.4", "centred@0.5", "chess@0.5"],
    "windows": 2,
    "window": 512,
}


class Ladder:
    """One model's part of the results file, and what fills it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.threads = options, thread_count(options.threads)
        protocol = {key: getattr(options, key) for key in ("window", "windows", "stride")}
        self.measure = partial(divergences, text=_text(options.text), **protocol)
        protocol["text"] = options.text.name if options.text else "help texts of Python"
        protocol["reference"] = options.reference
        self.report, self.part = kept(options.out, options.label, protocol, self.threads)
        self.rows = self.part["rows"]
        self.peer = LlamaCpp(options.peer_python) if options.kinds else None
        self.sides = self._sides()
        self.cases = [name for side in self.sides for name in side.rows]
        self.started = time.perf_counter()

    def _sides(self) -> list[OurSide | PeerSide]:
        source = gguf_of(self.options.model)
        (kind,) = [each for each in LADDER if source.stem.upper().endswith(each)] or [""]
        kinds, base = self.options.kinds, self.options.base
        self.part["file"], self.part["file_kind"] = source.name, kind
        sides: list[OurSide | PeerSide] = [*our_sides(self.options, kind, self.threads)]
        if self.peer:
            folder = self.options.folder.expanduser()
            files = ladder_files(self.peer, source, kind, kinds, base, self.threads, folder)
            for each, path in files.items():
                sides.append(PeerSide(self.peer, each, path, path == source, self.threads))
        return sides

    def late(self) -> bool:
        """Whether this run has taken as long as it may."""
        return time.perf_counter() - self.started > self.options.seconds

    def quality(self) -> None:
        """KL of every row that has none yet."""
        missing = {name for name in self.cases if name not in self.rows}
        if not missing:
            return
        load = partial(Generator.load, threads=self.threads, notify=say)
        name = self.options.reference
        dtype = None if name == FILE else name
        with load(self.options.model, dtype=dtype) as reference, bars() as progress:
            measure = partial(self.measure, reference=reference, progress=progress)
            for side in self.sides:
                if missing & set(side.rows) and not self.late():
                    say(f"quality of {', '.join(side.rows)}")
                    self.rows.update(side.quality(missing, measure))
                    save(self.options.out, self.report)

    def speed(self) -> None:
        """Interleaved rounds of all rows, until there are enough or time is up."""
        wanted = {"cases": self.cases, "tokens": self.options.tokens}
        speed = self.part.get("speed", {})
        if self.options.again or any(speed.get(key) != value for key, value in wanted.items()):
            speed = {**wanted, "seconds": {case: [] for case in self.cases}}
        if self._rounds(speed) >= self.options.rounds:
            return
        first = self.sides[0]
        assert isinstance(first, OurSide)
        ids = first.side.continuation(self.options.tokens)
        depth = len(first.side.prompt)
        cases = {}
        for side in self.sides:
            cases |= side.cases(ids, depth)
        alternate(cases, 0)  # nothing but the round that warms up
        while self._rounds(speed) < self.options.rounds and not self.late():
            for case, values in alternate(cases, 2, pause=PAUSE, warm=False).items():
                speed["seconds"][case] += [float(f"{value:.6g}") for value in values]
            say(f"{self._rounds(speed)} of {self.options.rounds} rounds")
        speed["prompt_tokens"], speed["machine"] = depth, machine(self.threads)
        speed["active_weight_fraction"] = {}
        for side in self.sides:
            speed["active_weight_fraction"] |= side.active()
        self.part["speed"] = speed
        self.part["peer"] = self.sides[-1].about if isinstance(self.sides[-1], PeerSide) else {}
        save(self.options.out, self.report)

    def _rounds(self, speed: dict[str, Any]) -> int:
        return len(speed["seconds"][self.cases[0]])

    def close(self) -> None:
        """Free everything."""
        for side in self.sides:
            if isinstance(side, OurSide):
                side.close()
        if self.peer:
            self.peer.close()


def _text(path: Path | None) -> str:
    """A file, or the default calibration text from its end, which calibration does not come to."""
    if path:
        return path.read_text(encoding="utf-8")
    from sparity_edge.text.default_text import default_documents

    return "\n\n".join(reversed(default_documents()))


def _options() -> argparse.Namespace:
    result = parser(__doc__, "ladder")
    add = result.add_argument
    add("settings", nargs="*", metavar="SETTING", help="PLAN:SPARSITY or PLAN@LEVEL of our rows")
    add("--model", default=DEFAULT_MODEL, help="a GGUF file or an alias; default: %(default)s")
    add("--label", help="of the model in the results (default: its name)")
    add("--text", type=Path, help="default: the help texts of Python, from their end")
    add("--kinds", nargs="*", default=["F32", *LADDER], metavar="KIND", help="of llama.cpp's files")
    add("--base", default="F32", choices=("F32", "F16", FILE), help="what they are made from")
    add("--folder", type=Path, default=cache_root() / "bench", help="that they stay in")
    add("--dense", nargs="*", default=DENSE, metavar="DTYPE", help="our rows without the dial")
    add(
        "--dial", nargs="*", default=DIAL, metavar="DTYPE", help="our rows with it; 'file': its own"
    )
    add("--reference", default="f32", metavar="DTYPE", help="of the KL: f32; 'file' is smaller")
    add("--packs", type=Path, nargs="*", default=[], metavar="FOLDER", help="with further plans")
    add("--no-peer", action="store_true", help="our side alone")
    add("--no-regrouped", dest="regrouped", action="store_false", help="no int4 made anew")
    add("--window", type=int, default=1024, help="tokens; default: %(default)s")
    add("--windows", type=int, default=8, help="default: %(default)s")
    add("--stride", type=int, default=4, help="default: %(default)s")
    add("--tokens", type=int, default=48, help="timed a round; default: %(default)s")
    add("--only", choices=("quality", "speed"), help="default: both")
    add("--again", choices=("speed",), help="forget the rounds of earlier runs")
    add("--seconds", type=float, default=1e9, help="stop after this long; a later run goes on")
    add("--peer-python", default=sys.executable, metavar="PATH", help="that has llama-cpp-python")
    options = result.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    options.kinds = [] if options.no_peer else options.kinds
    options.settings = options.settings or list(SETTINGS)
    options.label = options.label or Path(options.model).stem
    return options


def main() -> int:
    options = _options()
    ladder = Ladder(options)
    try:
        if options.only != "speed":
            ladder.quality()
        if options.only != "quality" and not ladder.late():
            ladder.speed()
    finally:
        ladder.close()
    if rows := timed_rows(ladder.part):
        print(show(rows))
        print(f"\n{verdict(rows)}\nOf numbers made anew: {verdict(made_anew(rows))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
