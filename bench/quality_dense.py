"""Perplexity of the dense model in each number format, under the protocol of REFERENCE.md.

WikiText-2 test, tokenised whole without special tokens and cut into consecutive windows of 1024;
windows 0, 4, ..., 28, each from a cold start without BOS; loss on all but the first token. The
reference figure for f32 was made with torch by others: `--expect` says how near we have to come.
With `--axes` instead the KL of groups along the inputs and along the outputs of every matrix.

    python bench/quality_dense.py ../shared/data/wikitext2/wiki.test.raw
    python bench/quality_dense.py ../shared/data/wikitext2/wiki.test.raw --axes 3 --model MODEL
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
import sys
import time
from pathlib import Path
from typing import Any

from shared.axes import kl_by_axis
from shared.common import thread_count

from sparity_edge import Generator
from sparity_edge.quality.perplexity import perplexity

MODEL = "smollm2-135m@wheel"
REFERENCE = 21.762  # f32, ../shared/data/REFERENCE.md
RESULTS = Path(__file__).resolve().parent / "results" / "quality_dense.json"


def measure(model: str, dtype: str, text: str) -> dict[str, Any]:
    start = time.perf_counter()
    with Generator.load(model, dtype=dtype) as generator:
        result = perplexity(generator, text, window=1024, windows=8, stride=4)
    print(
        f"{dtype:5} {result.perplexity:.4f} +- {result.stderr:.3f} over {result.tokens} tokens, "
        f"{time.perf_counter() - start:.0f} s",
        file=sys.stderr,
    )
    return {
        "dtype": dtype,
        "perplexity": result.perplexity,
        "stderr": result.stderr,
        "tokens": result.tokens,
        "active_weight_fraction": result.active_weight_fraction,
    }


def write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="wiki.test.raw")
    parser.add_argument("--model", default=MODEL, help="default: %(default)s")
    parser.add_argument("--dtypes", nargs="+", default=["f32", "int8", "int4"], metavar="DTYPE")
    parser.add_argument("--expect", type=float, default=REFERENCE, help="f32; default %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: bench/results")
    parser.add_argument("--axes", type=int, metavar="WINDOWS", help="of 512 tokens, for the axes")
    parser.add_argument("--label", help="name of the model in the results of --axes")
    arguments = parser.parse_args()

    text = arguments.text.read_text(encoding="utf-8")
    kept = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    axes = kept.get("axes", {})
    if arguments.axes:
        label = arguments.label or arguments.model
        axes[label] = kl_by_axis(arguments.model, text, arguments.axes, 512, thread_count(None))
        write(arguments.out, kept | {"axes": axes})
        return 0
    rows = [measure(arguments.model, dtype, text) for dtype in arguments.dtypes]
    base = rows[0]["perplexity"]
    for row in rows:
        row["ratio"] = row["perplexity"] / base
    report = {
        "model": arguments.model,
        "text": arguments.text.name,
        "protocol": "windows 0,4,...,28 of 1024 tokens, cold start, no BOS",
        "reference_f32": arguments.expect,
        "rows": rows,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "numba")},
        "axes": axes,
    }
    write(arguments.out, report)
    return 0 if math.isclose(base, arguments.expect, rel_tol=1e-3) else 1


if __name__ == "__main__":
    raise SystemExit(main())
