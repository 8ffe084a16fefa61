"""The two ceilings of this machine: streaming reads, and reads of random rows in ascending order.

python bench/roofline.py
"""

from __future__ import annotations

from typing import Any

from shared.common import parser, save, say, thread_count

from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table

ROW_BYTES = (256, 512, 1024, 2048, 4096, 8192, 16384)
DENSITIES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0)
QUICK_ROWS, QUICK_DENSITIES = (512, 4096), (0.3, 1.0)


def measure(
    threads: int, row_bytes: tuple[int, ...], densities: tuple[float, ...], rounds: int
) -> dict[str, Any]:
    """Streaming and all pairs of row length and density, interleaved."""
    from sparity_edge.measure.ceiling import Memory

    memory = Memory(threads)
    pairs = {f"{size}, {part}": (size, part) for size in row_bytes for part in densities}
    cases = {"streaming": memory.streaming()}
    cases |= {name: memory.gathering(*pair) for name, pair in pairs.items()}
    say(f"{threads} threads: {len(cases)} cases of at most {memory.nbytes >> 20} MB")
    samples = alternate(cases, rounds, say=say)
    memory.close()
    streaming = samples.pop("streaming")
    return {
        "threads": threads,
        "pool_bytes": memory.nbytes,
        "streaming_gb_s": summary(streaming),
        "rows": [
            {
                "row_bytes": pairs[name][0],
                "density": pairs[name][1],
                "useful_gb_s": summary(values),
                "of_streaming": summary(ratios(values, streaming)),
            }
            for name, values in samples.items()
        ],
    }


def show(result: dict[str, Any]) -> str:
    """Useful GB/s: a line for each length of row, a column for each density."""
    streaming = result["streaming_gb_s"]
    densities = sorted({row["density"] for row in result["rows"]}, reverse=True)
    speeds = {
        (row["row_bytes"], row["density"]): f"{row['useful_gb_s']['median']:.1f}"
        for row in result["rows"]
    }
    spread = max(row["useful_gb_s"]["spread"] for row in result["rows"])
    head = ["row bytes", *(f"{density:.0%} of the rows" for density in densities)]
    lengths = sorted({row["row_bytes"] for row in result["rows"]})
    lines = [[size, *(speeds[size, density] for density in densities)] for size in lengths]
    return (
        f"{result['threads']} threads: streaming {streaming['median']:.1f} GB/s "
        f"({streaming['q1']:.1f}-{streaming['q3']:.1f}); random rows, useful GB/s "
        f"(interquartile range at most {spread:.0%}):\n\n{table(head, lines)}\n"
    )


def main() -> int:
    arguments = parser(__doc__, "roofline").parse_args()
    most = thread_count(arguments.threads)
    rows, densities = (ROW_BYTES, DENSITIES) if not arguments.quick else (
        QUICK_ROWS, QUICK_DENSITIES
    )  # fmt: skip
    rounds = 3 if arguments.quick else arguments.rounds
    results = [measure(threads, rows, densities, rounds) for threads in sorted({1, most})]
    save(arguments.out, {"machine": machine(most), "rounds": rounds, "results": results})
    for result in results:
        print(show(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
