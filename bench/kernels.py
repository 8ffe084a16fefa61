"""Kernels of the table on the shapes of real models: useful GB/s, and the share of the ceiling.

Dense kernels are compared with streaming reads, kernels over active channels with reads of random
rows as long as theirs at the same density, and with the dense kernel on the same weights: the
speed-up. All that is compared runs interleaved within a round. Selection is in microseconds,
prefill in GFLOP/s for 512 tokens beside NumPy's BLAS in float32.

    python bench/kernels.py --models Llama-3-8B --formats int8 --kernels sparse
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from shared.common import parser, save, say, thread_count
from shared.synthetic import SHAPES

from sparity_edge.kernels.table import GROUPED, TABLE
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, with_spread

# "+min": with a minimum for each group. Plans are used with grouped integers.
FORMATS = ("f32", "bf16", "int8", "int4", "int4+min")
# Those that GGUF files bring along, for `--formats`: output-major, dense and prefill.
KEPT = ("int5", "int5+min", "iq4", "int2k", "int3k", "int4k", "int5k", "int6k", "iq4k")
SPARSE_FORMATS = tuple(name for name in FORMATS if name.partition("+")[0] in GROUPED)
DENSITIES = (0.7, 0.5, 0.3)
KINDS = tuple(dict.fromkeys(entry.bench for entry in TABLE if entry.bench))
QUICK_MODELS = ("SmolLM2-135M", "Llama-3-8B")
BLAS_PAUSE = 0.05  # seconds until the threads of BLAS no longer spin
Sides = tuple[int, int]


def shapes(models: list[str]) -> dict[Sides, str]:
    """(outputs, inputs) of all linear layers, each shape once, with the names that share it."""
    found: dict[Sides, list[str]] = {}
    for model in models:
        for name, sides in SHAPES[model].linears.items():
            found.setdefault(sides, []).append(f"{model} {name}")
    return {sides: "; ".join(names) for sides, names in found.items()}


def measure_dense(bench: Any, options: Any) -> list[dict[str, Any]]:
    """Every orientation of every format, interleaved with streaming reads."""
    from shared.cases import layouts_of

    results = []
    for sides, name in shapes(options.models).items():
        say(f"dense {name}: {sides[0]} x {sides[1]}")
        layouts = {
            (number_format, orientation): bench.fitting(layout)
            for number_format in options.formats
            for orientation, layout in layouts_of(number_format, sides).items()
        }
        cases = {key: bench.dense(layout) for key, layout in layouts.items()}
        runs: dict[Any, Callable[[], float]] = {key: case.seconds for key, case in cases.items()}
        samples = alternate({"streaming": bench.memory.streaming(), **runs}, options.rounds)
        for key, case in cases.items():
            speeds = [case.nbytes / seconds / 1e9 for seconds in samples[key]]
            results.append(
                {
                    "kind": "dense",
                    "kernel": "vmm" if key[1] == "output" else "spvmm",
                    "layer": name,
                    "shape": list(sides),
                    "measured_shape": list(layouts[key].shape),
                    "format": key[0],
                    "row_bytes": layouts[key].row_bytes,
                    "gb_s": summary(speeds),
                    "ceiling_gb_s": summary(samples["streaming"]),
                    "of_ceiling": summary(ratios(speeds, samples["streaming"])),
                }
            )
    return results


def sparse_layers(bench: Any, model: str, number_format: str) -> dict[str, tuple[Any, ...]]:
    """Layers that a plan makes sparse: (case at a density, the dense layouts it replaces)."""
    from shared.cases import layout_of

    from sparity_edge.packed.bundle import BundleLayout

    shape = SHAPES[model]
    hidden, inner, q = shape.hidden, shape.inner, shape.heads * shape.head_dim
    kv = shape.kv_heads * shape.head_dim

    def layer(orientation: str, outputs: int, inputs: int) -> Any:
        return layout_of(number_format, orientation, (outputs, inputs))

    up, down = layer("output", inner, hidden), layer("input", hidden, inner)
    result = {
        "vmmsp up": (lambda density: bench.outputs(up, density), [up]),
        "ffn up+down": (
            lambda density: bench.ffn(BundleLayout(up, down), density),
            [up, layer("output", hidden, inner)],
        ),
    }
    for name, outputs, inputs in (
        ("q", q, hidden),
        ("q+k+v", q + 2 * kv, hidden),
        ("gate+up", 2 * inner, hidden),
        ("down", hidden, inner),
    ):
        turned, plain = layer("input", outputs, inputs), layer("output", outputs, inputs)
        result[f"spvmm {name}"] = (
            lambda density, turned=turned: bench.inputs(turned, density),
            [plain],
        )
    return result


def measure_sparse(bench: Any, options: Any) -> list[dict[str, Any]]:
    """All densities of a layer, interleaved with the dense layer and random rows of that length."""
    results, done = [], set()
    for model in options.models:
        for number_format in [each for each in options.formats if each in SPARSE_FORMATS]:
            for name, (make, dense_layouts) in sparse_layers(bench, model, number_format).items():
                key = (name, number_format, *(layout.shape for layout in dense_layouts))
                if key in done:
                    continue
                done.add(key)
                say(f"sparse {model} {name} {number_format}")
                found = _sparse_layer(bench, make, bench.dense(*dense_layouts), options)
                about = {"kind": "sparse", "kernel": name.split()[0], "format": number_format}
                about["layer"] = f"{model} {name.split()[1]}"
                results += [{**about, **each} for each in found]
    return results


def _sparse_layer(bench: Any, make: Any, dense: Any, options: Any) -> list[dict[str, Any]]:
    cases = {density: make(density) for density in options.densities}
    runs: dict[Any, Callable[[], float]] = {"dense": dense.seconds}
    for density, case in cases.items():
        runs[density] = case.seconds
        runs["ceiling", density] = bench.memory.gathering(case.row_bytes, density)
    samples = alternate(runs, options.rounds)
    results = []
    for density, case in cases.items():
        ceiling = samples["ceiling", density]
        useful = [case.nbytes / seconds / 1e9 for seconds in samples[density]]
        results.append(
            {
                "density": density,
                "row_bytes": case.row_bytes,
                "gb_s": summary(useful),
                "ceiling_gb_s": summary(ceiling),
                "of_ceiling": summary(ratios(useful, ceiling)),
                "speedup": summary(ratios(samples["dense"], samples[density])),
            }
        )
    return results


def measure_select(bench: Any, options: Any) -> list[dict[str, Any]]:
    """Microseconds for a list of channels."""
    results = []
    shapes = [SHAPES[model] for model in options.models]
    for size in sorted({size for shape in shapes for size in (shape.hidden, shape.inner)}):
        cases = {
            (rule, density): bench.select(rule, size, density)
            for rule in ("threshold", "top", "n of m")
            for density in options.densities
        }
        samples = alternate({key: case.seconds for key, case in cases.items()}, options.rounds)
        for rule, density in cases:
            times = [1e6 * seconds for seconds in samples[rule, density]]
            about = {"kind": "select", "kernel": f"select {rule}", "size": size}
            results.append({**about, "density": density, "microseconds": summary(times)})
    return results


def measure_prefill(bench: Any, options: Any) -> list[dict[str, Any]]:
    """Output-major integers, interleaved with BLAS."""
    from shared.cases import blas, layouts_of

    results = []
    for sides, name in shapes(options.models).items():
        if name.endswith("head"):  # the head sees one token only
            continue
        say(f"prefill {name}: {sides[0]} x {sides[1]}")
        cases = {
            each: bench.prefill(layouts_of(each, sides)["output"])
            for each in options.formats
            if each in (*SPARSE_FORMATS, *KEPT) and layouts_of(each, sides)
        }
        cases["BLAS"] = blas(*sides)
        samples = alternate(
            {key: case.seconds for key, case in cases.items()},
            max(2, options.rounds // 2),
            pause=BLAS_PAUSE,
        )
        speeds = {
            key: [case.nbytes / seconds / 1e9 for seconds in samples[key]]
            for key, case in cases.items()
        }
        reference = speeds.pop("BLAS")
        for key, values in speeds.items():
            about = {"kind": "prefill", "kernel": "gemm", "layer": name, "shape": list(sides)}
            about |= {"format": key, "gflop_s": summary(values), "blas": summary(reference)}
            results.append({**about, "of_blas": summary(ratios(values, reference))})
    return results


MEASURES = {
    "dense": measure_dense,
    "sparse": measure_sparse,
    "select": measure_select,
    "prefill": measure_prefill,
}


def show(results: list[dict[str, Any]]) -> str:
    """A table for each kind."""
    texts = []
    for kind, (head, line) in _TABLES.items():
        lines = [line(result) for result in results if result["kind"] == kind]
        if lines:
            texts.append(table(head, lines))
    return "\n\n".join(texts)


def _percent(figure: dict[str, Any]) -> str:
    return with_spread({key: 100 * figure[key] for key in ("q1", "median", "q3")}, 0)


def _number(figure: dict[str, Any]) -> str:
    return f"{figure['median']:.1f}"


_TABLES: dict[str, tuple[list[str], Callable[[dict[str, Any]], list[object]]]] = {
    "dense": (
        ["layer", "outputs x inputs", "format", "kernel", "GB/s", "% of streaming"],
        lambda r: [
            r["layer"], "{} x {}".format(*r["shape"]), r["format"], r["kernel"],
            _number(r["gb_s"]), _percent(r["of_ceiling"]),
        ],
    ),
    "sparse": (
        ["layer", "kernel", "format", "density", "row bytes", "GB/s", "% of rows", "speed-up"],
        lambda r: [
            r["layer"], r["kernel"], r["format"], r["density"], r["row_bytes"],
            _number(r["gb_s"]), _percent(r["of_ceiling"]), with_spread(r["speedup"]),
        ],
    ),
    "select": (
        ["kernel", "channels", "density", "microseconds"],
        lambda r: [r["kernel"], r["size"], r["density"], with_spread(r["microseconds"])],
    ),
    "prefill": (
        ["layer", "outputs x inputs", "format", "GFLOP/s", "times BLAS in f32"],
        lambda r: [
            r["layer"], "{} x {}".format(*r["shape"]), r["format"],
            f"{r['gflop_s']['median']:.0f}", with_spread(r["of_blas"]),
        ],
    ),
}  # fmt: skip


def main() -> int:
    command = parser(__doc__, "kernels")
    command.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="M")
    command.add_argument(
        "--formats", nargs="+", choices=(*FORMATS, *KEPT), default=list(FORMATS),
        metavar="F", help=f"of {', '.join((*FORMATS, *KEPT))}; default: the first five",
    )  # fmt: skip
    command.add_argument(
        "--densities", nargs="+", type=float, default=list(DENSITIES), metavar="D",
        help="shares of channels that are active; default: %(default)s",
    )  # fmt: skip
    command.add_argument(
        "--kernels", nargs="+", choices=KINDS, default=list(KINDS), metavar="K",
        help=f"of {', '.join(KINDS)}; the results of the others stay in the file",
    )  # fmt: skip
    options = command.parse_args()
    if options.quick:
        options.rounds = 3
        options.models = [name for name in options.models if name in QUICK_MODELS]
        options.formats = [name for name in options.formats if name in ("int8", "int4")]
    threads = thread_count(options.threads)
    report: dict[str, Any] = {}
    if options.out.exists():
        report = json.loads(options.out.read_text(encoding="utf-8"))

    from shared.cases import Bench

    bench = Bench(threads)
    for kind in options.kernels:
        results = MEASURES[kind](bench, options)
        about = {"machine": machine(threads), "rounds": options.rounds}
        report.setdefault("kinds", {})[kind] = {**about, "results": results}
        save(options.out, report)
        print(show(results), flush=True)
    bench.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
