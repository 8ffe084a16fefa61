"""Rooms of the house and who imports whom, read from the real imports: lazy and typing ones too.

A room is what stands directly below `sparity_edge` (a package or a module), or `converters` as a
whole; kernels and converters have rooms of their own inside. `python tests/rooms.py` prints rooms,
levels, arrows, arrows that lead upward, circles, and files and folders that are too large.
"""

from __future__ import annotations

import ast
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
from own_files import own_files  # noqa: E402

# From the ground up: a room may import those above it in this list.
HOUSE = (
    "sparity_edge.errors",
    "sparity_edge.progress",
    "sparity_edge.choices",
    "sparity_edge.spelling",
    "sparity_edge.arrays",
    "sparity_edge.logits",
    "sparity_edge.terminal",
    "sparity_edge.system",
    "sparity_edge.config",
    "sparity_edge.text",
    "sparity_edge.packed",
    "sparity_edge.plans",
    "sparity_edge.kernels",
    "sparity_edge.model",
    "sparity_edge.generation",
    "sparity_edge.quality",
    "sparity_edge.lm_eval_adapter",
    "sparity_edge",  # the public names, each imported when it is first used
    "sparity_edge.measure",
    "converters",
    "sparity_edge.load",
    "sparity_edge.chat",
    "sparity_edge.server",
    "sparity_edge.cli",
    "sparity_edge.__main__",
)
# `kernels` itself: what is neither compiled nor recorded, and the decorator.
KERNELS = (
    "sparity_edge.kernels",
    "sparity_edge.kernels.simd",
    "sparity_edge.kernels.decode",
    "sparity_edge.kernels.sparse",
    "sparity_edge.kernels.prefill",
    "sparity_edge.kernels.batch",
    "sparity_edge.kernels.kept",
    "sparity_edge.kernels.screened",
    "sparity_edge.kernels.reference",
    "sparity_edge.kernels.table",
    "sparity_edge.kernels.program",
)
CONVERTERS = (
    "converters.fan_out",
    "converters.numbers",
    "converters.sources",
    "converters.calibration",
    "converters.rotation",
    "converters.allocate",
    "converters.methods",
    "converters.publish",
    "converters",
)
# What converters may import: the runtime up to the model, never what answers or is typed at.
FOR_CONVERTERS = HOUSE[: HOUSE.index("sparity_edge.generation")]

TREES = ("sparity_edge", "converters", "bench", "tests", "docs")
MOST_LINES = 300  # a longer file is two ideas
MOST_MODULES = 18  # a folder of more is two rooms
# Rooms of bench/: a script stands on all others, and on no script.
BENCH = (
    "processes",
    "shared",
    "tasks",
    "campaigns",
    "pages",
    "head",
    "forms",
    "limits",
    "speculation",
    "server",
    "scripts",
)

# `Generator.load`, which must go on working, is a lazy front of load.py.
FRONT = ("sparity_edge.generation.generator", "sparity_edge.load")

Arrow = tuple[str, str]  # from the importing module to the imported one


def python_files(root: Path, tree: str) -> list[Path]:
    """The project's own Python files in a folder below the root, sorted."""
    return sorted(
        root / name
        for name in own_files(root)
        if name.startswith(f"{tree}/") and name.endswith(".py")
    )


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    found = {}
    for package in ("sparity_edge", "converters"):
        for path in python_files(root, package):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of ours that a module imports, at its top, inside functions, or for typing."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(
                [*(above if node.level else []), *([node.module] if node.module else [])]
            )
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if whole in known:
                    yield whole
                elif base in known:
                    yield base


def all_arrows(root: Path = ROOT) -> list[Arrow]:
    """Every import of one of our modules by another, but for FRONT."""
    known = modules(root)
    arrows = {(name, other) for name, path in known.items() for other in imports(name, path, known)}
    return sorted(arrow for arrow in arrows - {FRONT} if arrow[0] != arrow[1])


def room_of(module: str, rooms: Iterable[str]) -> str | None:
    """The room that a module stands in: the longest name it begins with."""
    found = [
        room
        for room in rooms
        if module == room or (module.startswith(f"{room}.") and room != "sparity_edge")
    ]
    return max(found, key=len, default=None)


def between(rooms: Iterable[str], arrows: Iterable[Arrow]) -> dict[Arrow, Arrow]:
    """Arrows between different rooms, each with one import that draws it."""
    rooms, found = tuple(rooms), {}
    for module, other in arrows:
        pair = room_of(module, rooms), room_of(other, rooms)
        if pair[0] and pair[1] and pair[0] != pair[1]:
            found.setdefault((pair[0], pair[1]), (module, other))
    return found


def upward(rooms: tuple[str, ...], arrows: Iterable[Arrow]) -> list[Arrow]:
    """Imports of what stands further down in `rooms`."""
    return [
        (module, other)
        for module, other in arrows
        if (here := room_of(module, rooms))
        and (there := room_of(other, rooms))
        and rooms.index(there) > rooms.index(here)
    ]


def circles(arrows: Iterable[Arrow]) -> list[list[str]]:
    """Groups of two and more nodes that import each other in a circle (Tarjan, 1972)."""
    graph: dict[str, list[str]] = {}
    for here, there in arrows:
        graph.setdefault(here, []).append(there)
        graph.setdefault(there, [])
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    counter = itertools.count()

    def visit(node: str) -> None:
        number[node] = low[node] = next(counter)
        stack.append(node)
        for other in graph[node]:
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


def levels(pairs: Iterable[Arrow]) -> int:
    """Rooms on the longest way down; of a graph without circles."""
    below: dict[str, set[str]] = {}
    for here, there in pairs:
        below.setdefault(here, set()).add(there)

    def depth(room: str) -> int:
        return 1 + max((depth(other) for other in below.get(room, ())), default=0)

    return max(map(depth, below))


def beyond(arrows: Iterable[Arrow]) -> list[Arrow]:
    """Imports by which converters reach for what answers, judges or is typed at."""
    return [
        (here, there)
        for here, there in arrows
        if here.startswith("converters")
        and not there.startswith("converters")
        and room_of(there, HOUSE) not in FOR_CONVERTERS
    ]


def crowded(root: Path = ROOT) -> list[str]:
    """Python files of too many lines and folders of too many modules, each as a sentence."""
    files = [path for tree in TREES for path in python_files(root, tree)]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    folders = Counter(path.parent for path in files)
    return [
        f"{path.relative_to(root).as_posix()} has {count} {what}"
        for counts, most, what in (
            (lines, MOST_LINES, "lines"),
            (folders, MOST_MODULES, "modules"),
        )
        for path, count in counts.items()
        if count > most
    ]


def bench_upward(root: Path = ROOT) -> list[Arrow]:
    """Imports inside bench/ of a script, or of pages by shared."""
    folder = root / "bench"
    known = {
        ".".join(path.relative_to(folder).with_suffix("").parts): path
        for path in python_files(root, "bench")
    }
    level = {
        name: BENCH.index(name.partition(".")[0]) if "." in name else len(BENCH) for name in known
    }
    return [
        (name, other)
        for name, path in known.items()
        for other in imports(name, path, known)
        if level[other] > level[name] or "." not in other
    ]


def main() -> None:
    """Print what the house looks like."""
    known, arrows = modules(), all_arrows()
    rooms = {room_of(name, HOUSE) for name in known}
    pairs = between(HOUSE, arrows)
    loose = circles(arrows)
    sys.stdout.write(
        f"{len(known)} modules, {len(arrows)} imports\n"
        f"{len(rooms)} rooms, {len(pairs)} arrows between them, "
        f"{'no' if circles(pairs) else levels(pairs)} levels\n"
        f"{len(upward(HOUSE, arrows))} imports upward, {len(circles(pairs))} circles of rooms, "
        f"{len(loose)} circles of modules\n"
    )
    for part, inside in (("kernels", KERNELS), ("converters", CONVERTERS)):
        sys.stdout.write(f"{len(upward(inside, arrows))} imports upward inside {part}\n")
    for order in (HOUSE, KERNELS, CONVERTERS):
        for here, there in upward(order, arrows):
            sys.stdout.write(f"  upward: {here} -> {there}\n")
    for group in loose:
        sys.stdout.write(f"  circle: {', '.join(group)}\n")
    sys.stdout.write(f"{len(beyond(arrows))} imports of converters beyond the model\n")
    sys.stdout.writelines(f"  {here} -> {there}\n" for here, there in beyond(arrows))
    sys.stdout.write(f"{len(bench_upward())} imports upward inside bench\n")
    sys.stdout.write(
        f"{len(crowded())} files over {MOST_LINES} lines or folders over {MOST_MODULES} modules\n"
    )
    sys.stdout.writelines(f"  {sentence}\n" for sentence in crowded())


if __name__ == "__main__":
    main()
