"""Bytes against time: what a token of each plan reads, and how far its time is from streaming.

For every setting: bytes of weights and KV cache of one token, the time in which this machine
streams so many, the time of the token, and the ratio of the two; and for every phase of the token
(what runs between two barriers) as well. Whole tokens, tokens with clocks at barriers, and
streaming reads run interleaved; caches are emptied before each token. The state is that after real
text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from shared.phases import Phases
from shared.side import Side

from sparity_edge.measure.ceiling import Memory
from sparity_edge.measure.rounds import alternate, ratios, summary, table, timed, with_spread

EVICTED = 128 << 20  # bytes read to empty the caches, of all levels
LEAST_SHARE = 0.005  # of a token's time, of phases that are printed


def measure(side: Side, text: str, options: Any) -> dict[str, Any]:
    """Bytes and times of a token at one setting, and of each kind of phase."""
    generator, model = side.generator, side.generator.loaded.model
    ids = side.continuation(options.tokens)
    recorded = Phases(model)
    generator.apply(side.settings[text])
    model.kv_cache.trim(0)
    model.read(side.prompt)
    for token in ids:
        model.read([token], sparse=True)
    whole, clocked, team = recorded.program, recorded.stamped(), model.machine.team
    memory = Memory(model.threads, EVICTED)
    streaming = memory.streaming()
    taken: list[list[float]] = []

    def stamped() -> float:
        streaming()
        seconds = timed(partial(team.run, clocked))
        taken.append(clocked.microseconds())
        return seconds

    def plain() -> float:
        streaming()
        return timed(partial(team.run, whole))

    cases: dict[str, Callable[[], float]] = {
        "token": plain, "clocked": stamped, "streaming": memory.streaming(0.02)
    }  # fmt: skip
    samples = alternate(cases, options.rounds)
    memory.close()
    positions = len(model.kv_cache)
    phases = recorded.phases()
    nbytes = [phase.nbytes(positions) for phase in phases]
    speeds = samples["streaming"]
    floor = [sum(nbytes) / speed / 1e9 for speed in speeds]
    kinds: dict[str, list[int]] = {}
    for index, phase in enumerate(phases):
        kinds.setdefault(phase.name, []).append(index)
    taken = taken[-options.rounds :]
    return {
        "bytes": sum(nbytes),
        "streaming_gb_s": summary(speeds),
        "milliseconds": summary([1e3 * each for each in samples["token"]]),
        "clocked_milliseconds": summary([1e3 * each for each in samples["clocked"]]),
        "roofline_milliseconds": summary([1e3 * each for each in floor]),
        "ratio": summary(ratios(samples["token"], floor)),
        "active_weight_fraction": model.active_weight_fraction,
        "context": positions,
        "phases": {
            name: _of_kind(indices, nbytes, taken, speeds) for name, indices in kinds.items()
        },
    }


def _of_kind(
    indices: list[int], nbytes: list[int], taken: list[list[float]], speeds: list[float]
) -> dict[str, Any]:
    """All phases of one name together."""
    read = sum(nbytes[index] for index in indices)
    times = [sum(run[index] for index in indices) for run in taken]
    floor = [read / speed / 1e3 for speed in speeds]
    return {
        "count": len(indices),
        "bytes": read,
        "microseconds": summary(times),
        "roofline_microseconds": summary(floor),
    }


def show(models: dict[str, Any]) -> str:
    """A table of settings, and one of phases for each setting."""
    head = ["model", "setting", "MB", "GB/s", "of bytes, ms", "ms", "ratio"]
    lines, texts = [], []
    for label, part in models.items():
        for text, row in part["rows"].items():
            lines.append(
                [
                    label, text, f"{row['bytes'] / 1e6:.1f}",
                    f"{row['streaming_gb_s']['median']:.1f}",
                    f"{row['roofline_milliseconds']['median']:.2f}",
                    f"{row['milliseconds']['median']:.2f}", with_spread(row["ratio"]),
                ]
            )  # fmt: skip
            texts.append(f"{label} {text}:\n\n{phases(row)}")
    return "\n\n".join([table(head, lines, aligned=True), *texts])


def phases(row: dict[str, Any]) -> str:
    """What each kind of phase reads and takes in one token; without weights it has no ratio."""
    lines = []
    for name, each in row["phases"].items():
        took, floor = (each[key]["median"] for key in ("microseconds", "roofline_microseconds"))
        if took >= 1e3 * LEAST_SHARE * row["milliseconds"]["median"]:
            ratio = f"{took / floor:.2f}" if floor > took / 10 else ""
            lines.append(
                [name, each["count"], f"{each['bytes'] / 1e6:.2f}", f"{floor:.0f}", f"{took:.0f}",
                 ratio, f"{took - floor:.0f}"]
            )  # fmt: skip
    head = ["phase", "times", "MB", "of bytes, us", "us", "ratio", "over"]
    return table(head, lines, aligned=True)
