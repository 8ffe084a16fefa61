"""Figures on a page: the link, what it shows, and the machine it was measured on.

`FIGURES` names each picture, the results files it is drawn from, and its caption. Needs no
matplotlib, so that a test can tell whether pictures are fresh: each carries a checksum of those
files and of the code that drew it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pages.tables import Results, Section

CHECKSUM = re.compile(r"inputs sha256:([0-9a-f]{64})")


class Figure(NamedTuple):
    """A picture in docs/figures."""

    needs: tuple[str, ...]  # names of results files, without .json
    text: str  # what it shows
    uses: tuple[str, ...] = ()  # results files that it shows as well, where they are there

    def inputs(self, results: Results) -> tuple[str, ...]:
        """The results files that it is drawn from."""
        return (*self.needs, *(name for name in self.uses if name in results))


FIGURES = {
    "ladder": Figure(
        ("ladder",),
        "KL to the f32 model against decoding speed: llama.cpp's ladder of quantisations and ours "
        "with the dial, interleaved in one run; lower right is better. Lines join the rows that "
        "no other row of their side beats. Hollow rows hold the very numbers of the file, and the "
        "dotted line does without them",
    ),
    "active": Figure(
        ("plans",),
        "Decoding speed against our own dense decoding, over the share of weight bytes that a plan "
        "reads; dashes: if time were bytes",
    ),
    "parts": Figure(("parts",), "Time of one token, by part"),
    "roofline": Figure(
        ("roofline",),
        "What memory gives at most: useful bytes a second of random rows over those of a stream",
    ),
    "memory": Figure(("latency",), "The most memory that a process held while it answered"),
}
# Figures of all methods, and what draws them besides figures.py: name -> model.
FIELD_CODE = ("field_figure.py", "field.py")
FIELD = {
    "field-smollm2-f32": "SmolLM2-f32",
    "field-smollm2-int4": "SmolLM2-int4",
    "field-qwen": "Qwen2.5-Coder-1.5B",
}
FIGURES |= {
    name: Figure(
        ("quality",),
        f"All methods: KL of {model} to its dense self, over the share of weight bytes read and, "
        "where it was measured, over the time of a token; lower left is better. Lines join the "
        "settings of a family that no other of it beats, hollow ones are the rest",
        ("times",),
    )
    for name, model in FIELD.items()
}


def checksum(name: str, results: Results) -> str:
    """Of what a figure is drawn from."""
    digest = hashlib.sha256()
    for each in ("figures.py", *(FIELD_CODE if name in FIELD else ())):
        digest.update(Path(__file__).with_name(each).read_text(encoding="utf-8").encode())
    for need in FIGURES[name].inputs(results):
        digest.update(json.dumps(results[need], sort_keys=True).encode())
    return digest.hexdigest()


def drawn_from(path: Path) -> str | None:
    """The checksum that a picture carries."""
    found = CHECKSUM.search(path.read_text(encoding="utf-8"))
    return found[1] if found else None


def machines(results: Results, needs: tuple[str, ...]) -> str:
    """CPU, threads and the days on which something was measured."""
    found = [about for need in needs for about in _machines_in(results[need])]
    cpus = dict.fromkeys(about["cpu"].partition(" (")[0] for about in found)
    threads = sorted({about["threads"] for about in found})
    days = sorted({about["date"][:10] for about in found})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{' and '.join(cpus)}, {' or '.join(map(str, threads))} threads, {when}"


def _machines_in(report: Any) -> list[Mapping[str, Any]]:
    """Every "machine" in a results file; where speed has one of its own, that is meant."""
    if not isinstance(report, Mapping):
        return []
    if "machine" in report.get("speed", {}):
        return [report["speed"]["machine"]]
    own = [report["machine"]] if "machine" in report else []
    return own + [about for each in report.values() for about in _machines_in(each)]


def _block(name: str) -> Section:
    figure = FIGURES[name]

    def write(results: Results) -> str:
        caption = f"{figure.text}. {machines(results, figure.inputs(results))}."
        short = re.split(r"[:.;]", figure.text)[0]
        return f"![{short}](figures/{name}.svg)\n\n{caption}"

    return Section(figure.needs, write)


FIGURE_BLOCKS = {f"figure-{name}": _block(name) for name in FIGURES}
