"""What a product costs at every density: the curves that a plan with a budget of time reads.

For the matrices of some models, by kernel and format: microseconds of one product with so many of
its rows active, weights coming from memory, all densities of a matrix taking turns with the dense
output-major product of the same matrix and with streaming reads.

Curves of it are kept for plans that are calibrated on this machine; `--ship` puts them beside the
package, for CPUs of the same class.

    python bench/costs.py
    python bench/costs.py --models Llama-3-8B --formats int8
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from shared.common import parser, save, say, thread_count
from shared.synthetic import SHAPES

from converters.allocate.curves import KERNELS, cpu_class
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, summary, table
from sparity_edge.system.folders import curves_root

MODELS = ("SmolLM2-135M", "Qwen2.5-1.5B", "Llama-3-8B")
FORMATS = ("int8", "int4+min")
DENSITIES = tuple(round(tenths / 10, 1) for tenths in range(10, 0, -1))
READ_BYTES = 64 << 20  # a run: twice the third-level cache here, and 1 to 2 ms


def matrices(model: str) -> list[tuple[str, int, int]]:
    """(kernel, outputs, inputs) of all that may be sparse; for `ffn` hidden and neurons."""
    shape = SHAPES[model]
    hidden, inner, q = shape.hidden, shape.inner, shape.heads * shape.head_dim
    kv = shape.kv_heads * shape.head_dim
    sides = {(q, hidden), (kv, hidden), (q + 2 * kv, hidden), (hidden, q)}
    sides |= {(inner, hidden), (2 * inner, hidden), (hidden, inner)}
    return [
        *(("spvmm", *each) for each in sorted(sides)),
        ("vmmsp", inner, hidden),
        ("ffn", hidden, inner),
    ]


def measure(bench: Any, kernel: str, sides: tuple[int, int], form: str, rounds: int) -> Any:
    """All densities of one matrix, and what it costs to read it whole in rows of outputs."""
    from shared.cases import layout_of

    from sparity_edge.packed.bundle import BundleLayout

    outputs, inputs = sides
    turned, plain = layout_of(form, "input", sides), layout_of(form, "output", sides)
    up = layout_of(form, "output", (inputs, outputs))
    dense = (up, layout_of(form, "output", sides)) if kernel == "ffn" else (plain,)
    cases = {"dense": bench.dense(*dense)}
    for density in DENSITIES:
        if kernel == "spvmm":
            cases[density] = bench.inputs(turned, density)
        elif kernel == "vmmsp":
            cases[density] = bench.outputs(plain, density)
        else:
            cases[density] = bench.ffn(BundleLayout(up, turned), density)
    samples = alternate(
        {"streaming": bench.memory.streaming(), **{k: v.seconds for k, v in cases.items()}}, rounds
    )
    return cases, samples


def results_of(cases: Any, samples: Any, about: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of the table for each density, and one for the dense product."""
    found = []
    for key, case in cases.items():
        dense = key == "dense"
        times = summary([1e6 * seconds for seconds in samples[key]])
        found.append(
            {
                **about,
                "kernel": "vmm" if dense else about["kernel"],
                "instead_of": about["kernel"] if dense else None,
                "density": 1.0 if dense else key,
                "row_bytes": 0 if dense else case.row_bytes,
                "bytes": case.nbytes,
                "microseconds": times["median"],
                "quartiles": [times["q1"], times["q3"]],
                "streaming_gb_s": summary(samples["streaming"])["median"],
            }
        )
    return found


def sizes_of(model: str) -> tuple[int, int]:
    """Channels of the vectors that are chosen from."""
    return SHAPES[model].hidden, SHAPES[model].inner


def selections(bench: Any, model: str, rounds: int) -> list[tuple[int, float]]:
    """(channels, microseconds) of choosing the active ones of the vectors of a model."""
    cases = {size: bench.select("threshold", size, 0.6) for size in sizes_of(model)}
    samples = alternate({str(size): case.seconds for size, case in cases.items()}, rounds)
    return [(size, 1e6 * summary(samples[str(size)])["median"]) for size in cases]


def curves_of(report: dict[str, Any]) -> dict[str, Any]:
    """What `converters.allocate.curves` reads, from a results file: ratios to the dense product."""
    results, found = report["results"], {}
    dense = {_matrix(each, "instead_of"): each for each in results if each["kernel"] == "vmm"}
    for kernel in KERNELS:
        by_row: dict[int, list[list[float]]] = {}
        for row in (each for each in results if each["kernel"] == kernel):
            if row["density"] == 1.0:
                key = _matrix(row, "kernel")
                same = [each for each in results if _matrix(each, "kernel") == key]
                times = {each["density"]: each["microseconds"] for each in same}
                curve = [times[d] / dense[key]["microseconds"] for d in sorted(times)]
                by_row.setdefault(row["row_bytes"], []).append(curve)
        found[kernel] = {
            str(size): [round(sum(at) / len(at), 3) for at in zip(*curves, strict=True)]
            for size, curves in sorted(by_row.items())
        }
    # A line through what choosing takes, in bytes that dense products read in a microsecond.
    rate = statistics.median(each["bytes"] / each["microseconds"] for each in dense.values())
    sizes, times = zip(*report["selections"], strict=True)
    slope, offset = statistics.linear_regression(sizes, times)
    machine = {key: report["machine"].get(key) for key in ("cpu", "threads", "date")}
    selection = [round(max(0.0, offset) * rate), round(max(0.0, slope) * rate, 3)]
    return {"machine": machine, "densities": sorted(DENSITIES), "selection": selection, **found}


def _matrix(row: dict[str, Any], kernel: str) -> tuple[Any, ...]:
    return (row[kernel], *(row[name] for name in ("model", "format", "outputs", "inputs")))


def write_curves(report: dict[str, Any], ship: bool) -> None:
    """Keep the curves for plans that are made on this machine, and beside the package."""
    text = json.dumps(curves_of(report), indent=1) + "\n"
    places = [curves_root()]
    if ship:
        places.append(Path(__file__).resolve().parent.parent / "converters/allocate/cost_curves")
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{cpu_class()}.json").write_text(text, encoding="utf-8")
        say(f"curves in {place / cpu_class()}.json")


def show(results: list[dict[str, Any]]) -> str:
    """A line for each matrix: microseconds, dense and at each density."""
    lines = []
    for dense in (each for each in results if each["kernel"] == "vmm"):
        same = ("format", "outputs", "inputs")
        curve = [
            f"{each['microseconds']:.1f}"
            for each in results
            if each["kernel"] == dense["instead_of"] and all(each[k] == dense[k] for k in same)
        ]
        sides = f"{dense['outputs']} x {dense['inputs']}"
        lines.append(
            [dense["instead_of"], dense["format"], sides, f"{dense['microseconds']:.1f}", *curve]
        )
    return table(["kernel", "format", "matrix", "vmm", *map(str, DENSITIES)], lines)


def main() -> int:
    command = parser(__doc__, "costs")
    command.add_argument("--models", nargs="+", choices=SHAPES, default=list(MODELS), metavar="M")
    command.add_argument("--formats", nargs="+", default=list(FORMATS), metavar="F")
    command.add_argument(
        "--ship", action="store_true", help="put the curves beside the package, for CPUs like this"
    )
    options = command.parse_args()
    threads = thread_count(options.threads)
    rounds = 3 if options.quick else options.rounds
    report: dict[str, Any] = {"results": []}
    if options.out.exists():
        report = json.loads(options.out.read_text(encoding="utf-8"))

    from shared.cases import Bench

    bench = Bench(threads, READ_BYTES)
    for model in options.models:
        for form in options.formats:
            say(f"{model} {form}")
            found: list[dict[str, Any]] = []
            for kernel, *sides in matrices(model):
                about = {"model": model, "kernel": kernel, "format": form}
                about |= {"outputs": sides[0], "inputs": sides[1], "threads": threads}
                found += results_of(*measure(bench, kernel, tuple(sides), form, rounds), about)
            kept = [
                each
                for each in report["results"]
                if (each["model"], each["format"]) != (model, form)
            ]
            report |= {"machine": machine(threads), "rounds": rounds, "results": kept + found}
            save(options.out, report)
            print(show(found), flush=True)
        others = [each for each in report.get("selections", ()) if each[0] not in sizes_of(model)]
        report["selections"] = sorted([*others, *map(list, selections(bench, model, rounds))])
        save(options.out, report)
    bench.close()
    write_curves(report, options.ship)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
