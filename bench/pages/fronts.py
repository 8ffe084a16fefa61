"""Which of two sides is faster at equal loss: fronts of rows that have a KL and a speed.

Works on a model's part of ladder.json. Rows of one run share their rounds, so ratios of speed are
taken within a round. Knows nothing of how anything is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from shared.names import OURS, PEER

from sparity_edge.measure.rounds import ratios, summary, table, with_spread

UNQUANTISED = ("F32", "F16", "BF16")  # rows of the peer that are no step of its ladder
Rows = Mapping[str, Mapping[str, Any]]


def timed_rows(part: Mapping[str, Any]) -> Rows:
    """Row name -> its quality, with "seconds" a token round by round; rows that have both."""
    seconds = part.get("speed", {}).get("seconds", {})
    return {
        name: {**row, "seconds": seconds[name]}
        for name, row in part["rows"].items()
        if seconds.get(name)
    }


def made_anew(rows: Rows) -> Rows:
    """The rows but those that hold the very numbers of the file all others were made from."""
    return {name: row for name, row in rows.items() if not row["file_numbers"]}


def tokens_s(row: Mapping[str, Any]) -> float:
    """Tokens a second: the median over the rounds."""
    return 1 / statistics.median(row["seconds"])


def of_side(rows: Rows, side: str) -> Rows:
    """The rows of one side, from the smallest KL on."""
    found = [(name, row) for name, row in rows.items() if row["side"] == side]
    return dict(sorted(found, key=lambda pair: float(pair[1]["kl_mean"])))


def front(rows: Rows, side: str) -> list[str]:
    """Names of a side's rows that no other of its rows beats in both KL and speed, by KL."""
    best, names = 0.0, []
    for name, row in of_side(rows, side).items():
        if tokens_s(row) > best:
            best = tokens_s(row)
            names.append(name)
    return names


def duels(rows: Rows) -> dict[str, tuple[str, dict[str, Any]] | None]:
    """By row of the peer: the fastest of ours whose KL is no larger, and how much faster it is.

    None where each of our rows loses more.
    """
    found: dict[str, tuple[str, dict[str, Any]] | None] = {}
    ours = of_side(rows, OURS)
    for name, row in of_side(rows, PEER).items():
        as_good = [mine for mine in ours if ours[mine]["kl_mean"] <= row["kl_mean"]]
        best = max(as_good, key=lambda mine: tokens_s(ours[mine]), default=None)
        found[name] = None
        if best is not None:
            found[name] = best, summary(ratios(row["seconds"], ours[best]["seconds"]))
    return found


def verdict(rows: Rows) -> str:
    """A sentence: whether ours is faster at the KL of every quantised step of the peer's ladder.

    What is true at the KL of each of the peer's rows is true of all between them: as KL grows, the
    peer's front changes only at its own rows, and ours only gets faster. Rows of UNQUANTISED are
    neither counted nor claimed.
    """
    found = {name: duel for name, duel in duels(rows).items() if name not in UNQUANTISED}
    if not found:
        return "No quantised step of llama.cpp's ladder was measured."
    slower = [name for name, duel in found.items() if duel is None or duel[1]["median"] <= 1]
    if slower:
        return f"Not faster at the KL of {', '.join(slower)}."
    least = min(duel[1]["median"] for duel in found.values() if duel)
    return (
        "At the KL of every quantised step of llama.cpp's ladder ours is faster, "
        f"{least:.2f} times at least."
    )


def show(rows: Rows) -> str:
    """All rows in one table, each side by KL; fronts are marked with a star."""
    found = duels(rows)
    fronts = {*front(rows, OURS), *front(rows, PEER)}
    lines = []
    for side in (PEER, OURS):
        for name, row in of_side(rows, side).items():
            duel = found.get(name)
            lines.append([
                side,
                f"{name}{' *' if name in fronts else ''}{' =' if row['file_numbers'] else ''}",
                f"{row['bytes_a_token'] / 1e6:.0f}",
                f"{row['active_weight_fraction']:.3f}",
                f"{row['kl_mean']:.5f}",
                f"{row['perplexity']:.2f}",
                f"{tokens_s(row):.1f}",
                f"{duel[0]}: {with_spread(duel[1])}" if duel else "",
            ])  # fmt: skip
    head = ["side", "row", "MB a token", "active", "KL", "perplexity", "tok/s",
            "fastest of ours at no more KL"]  # fmt: skip
    return table(head, lines)
