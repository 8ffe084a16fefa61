"""The rows of `bench` as Markdown, CSV, JSON or JSON lines.

Markdown is for reading: what all rows share stands above the table, and samples are left out, as
they are of CSV.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparity_edge.measure.rounds import table
from sparity_edge.terminal.screen import neutral

Row = Mapping[str, Any]


def written(rows: Sequence[Row], form: str) -> str:
    """All rows in one of the formats `md`, `json`, `jsonl` and `csv`, no newline at the end."""
    return {"md": _markdown, "json": _json, "jsonl": _lines, "csv": _csv}[form](rows)


def _json(rows: Sequence[Row]) -> str:
    return "[\n" + ",\n".join(map(_line, rows)) + "\n]"


def _lines(rows: Sequence[Row]) -> str:
    return "\n".join(map(_line, rows))


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _csv(rows: Sequence[Row]) -> str:
    fields = dict.fromkeys(key for row in rows for key in row if not key.startswith("samples_"))
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().rstrip("\n")


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={item}" for name, item in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _markdown(rows: Sequence[Row]) -> str:
    shared = [each for each in CONFIGURATION if len({each.show(row) for row in rows}) == 1]
    columns = [each for each in CONFIGURATION if each not in shared] + list(MEASURED)
    columns = [each for each in columns if {each.show(row) for row in rows} - {"", each.dull}]
    head = [each.title for each in columns]
    lines = [[each.show(row) for each in columns] for row in rows]
    above = "  \n".join(neutral(line) for line in _above(rows[0], shared))
    return f"{above}\n\n{table(head, lines, aligned=True)}"


def _above(row: Row, shared: Sequence[Column]) -> list[str]:
    """What holds for all rows, a line each for versions, machine, model and configuration."""
    packages = [f"{name} {row['packages'][name]}" for name in LIBRARIES if name in row["packages"]]
    features = [name for name in FEATURES if name in row["cpu_features"]]
    return [
        " · ".join([f"sparity-edge {row['version']}", f"Python {row['python']}", *packages]),
        f"{row['cpu_info']} · {row['physical_cores']} cores · {' '.join(features)} · "
        f"{row['memory_bytes'] / 1e9:.0f} GB · {row['system']}",
        f"{Path(row['model'] or '').name} · {row['model_type']} · "
        f"{row['model_n_params'] / 1e6:,.1f} M parameters",
        " · ".join(
            [
                *(f"{each.title} {each.show(row)}" for each in shared if each.show(row)),
                f"mean ± standard deviation of {row['rounds']}",
                f"kernels ready in {row['compile_seconds']:.2g} s, weights in "
                f"{row['load_seconds']:.2g} s",
            ]
        ),
    ]


@dataclass(frozen=True)
class Column:
    """A column of the table, or a fact above it."""

    title: str
    show: Callable[[Row], str]
    dull: str = ""  # a column of nothing but this is left out


def _number(key: str, digits: int, factor: float = 1, sign: str = "") -> Callable[[Row], str]:
    def show(row: Row) -> str:
        value = row.get(key)
        return "" if value is None else f"{sign}{factor * value:.{digits}f}"

    return show


def _dial(row: Row) -> str:
    if not row["plan"]:
        return "dense"
    return f"{row['plan']} {row['sparsity']:.2f} (level {row['level']:.2f})"


def _ceiling(row: Row) -> str:
    if row.get("of_streaming") is None:
        return ""
    return f"{row['of_streaming']:.0%} of {row['streaming_gb_s']:.0f} GB/s"


LIBRARIES = ("numpy", "numba", "llvmlite")
# Those that kernels ask for or that say how wide vectors are, of some hundred.
FEATURES = ("sse2", "avx2", "f16c", "avx512f", "avx512vnni", "avx512bf16", "neon", "dotprod")
CONFIGURATION = (
    Column("dtype", lambda row: str(row["dtype"])),
    Column("layout", lambda row: str(row["layout"] or "")),
    Column("size MB", _number("model_size", 0, 1e-6)),
    Column("cache", lambda row: str(row["cache_dtype"])),
    Column("threads", lambda row: str(row["n_threads"])),
    Column("sparsity", _dial),
)
MEASURED = (
    Column("test", lambda row: str(row["test"])),
    Column("t/s", lambda row: f"{row['avg_ts']:.2f} ± {row['stddev_ts']:.2f}"),
    Column("against first", _number("ratio", 3), "1.000"),
    Column("TTFT ms", _number("ttft_ms", 1)),
    Column("TPOT ms", _number("tpot_ms", 2)),
    Column("99 % ms", _number("tpot_p99_ms", 2)),
    Column("times one token", _number("price", 2)),
    Column("weights active", _number("active_weight_fraction", 3), "1.000"),
    Column("of streaming", _ceiling),
    Column("peak MB", _number("peak_memory_bytes", 0, 1e-6)),
    Column("KL", _number("plan_kl", 4, sign="~")),
)
