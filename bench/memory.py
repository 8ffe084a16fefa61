"""What a process holds in memory while it answers a prompt, and where: a table by kind and stage.

Linux only: reads /proc/self/smaps. Pages of files (machine code of libraries)
are shared by all processes that use them and given back when memory is short; anonymous ones are
not. The peak is VmHWM, what bench/latency.py reports.

    python bench/memory.py
    python bench/memory.py --model model.gguf --prompt 2048
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path

MB = 1e6
_LIBRARIES = ("libllvmlite", "numba", "numpy", "libscipy_openblas", "tokenizers", "python")


def resident() -> Counter[str]:
    """Resident bytes by kind of mapping."""
    found: Counter[str] = Counter()
    kind = ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-", line):
            name = line.split(maxsplit=5)[5] if len(line.split(maxsplit=5)) == 6 else ""
            kind = next((each for each in _LIBRARIES if each in name), "")
            if not kind:
                kind = "other files" if name.startswith("/") else name or "anonymous"
        elif line.startswith("Rss:"):
            found[kind] += 1024 * int(line.split()[1])
        elif line.startswith("Anonymous:") and not kind.startswith(("anonymous", "[")):
            found["written pages of files"] += 1024 * int(line.split()[1])
            found[kind] -= 1024 * int(line.split()[1])
    return found


def peak() -> float:
    """The most bytes in memory so far."""
    status = Path("/proc/self/status").read_text()
    return 1024 * float(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]


def stages(model: str, prompt: int, threads: int) -> list[tuple[str, Counter[str], float]]:
    """Resident bytes after every step towards an answer."""
    rows = []

    def note(name: str) -> None:
        rows.append((name, resident(), peak()))

    note("Python")
    import sparity_edge.generation.generator as generate

    note("package")
    generator = generate.Generator.load(model, threads=threads)
    note("loaded")
    generator.compile()
    note("compiled")
    params = generate.SamplingParams(max_tokens=2, ignore_eos=True)
    generator.generate([5] * prompt, params)
    note(f"prompt of {prompt}")
    generator.generate([5] * prompt, params)
    cache = generator.loaded.model.kv_cache
    weights = generator.info()["weight_bytes"]
    used = cache.bytes_per_token * len(cache)
    note("again")
    surplus = peak() - weights - used
    print(
        f"weights {weights / MB:.1f} MB, cache {used / MB:.1f} MB, peak beyond {surplus / MB:.1f}"
    )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompt", type=int, default=512, help="tokens; default %(default)s")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON as well; default: none")
    arguments = parser.parse_args()
    if not Path("/proc/self/smaps").exists():
        raise SystemExit("This needs Linux; elsewhere bench/latency.py tells the peak.")
    rows = stages(arguments.model, arguments.prompt, arguments.threads)
    kinds = sorted({kind for _, found, _ in rows for kind in found}, key=lambda k: -rows[-1][1][k])
    print(f"{'MB':24}" + "".join(f"{name:>16}" for name, _, _ in rows))
    for kind in kinds:
        values = [found[kind] / MB for _, found, _ in rows]
        if max(values) >= 0.5:
            print(f"{kind:24}" + "".join(f"{value:16.1f}" for value in values))
    print(f"{'in memory':24}" + "".join(f"{sum(f.values()) / MB:16.1f}" for _, f, _ in rows))
    print(f"{'peak so far':24}" + "".join(f"{most / MB:16.1f}" for _, _, most in rows))
    if arguments.out:
        report = [{"stage": name, "resident": found, "peak": most} for name, found, most in rows]
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
