"""Two versions of this project against each other: two checkouts, one run, interleaved.

Each side runs in a process of its own with this Python, PYTHONPATH naming its checkout, and answers
through the public interface: decoding behind a short prompt, and a prompt of 512 tokens, dense and
with plans. Starts of the command follow: cold (no compiled kernels) and warm, `import sparity_edge`
and `--help`. Both are interleaved, every other round in reverse. A ratio is seconds of OLD over
seconds of NEW within a round, so that above 1 the new version is faster. `same_tokens` says whether
both sides chose the same tokens throughout.

    git worktree add ../old 7415bc7
    python bench/versions.py ../old . --model smollm2-135m@wheel --plan centred@0.7
    python bench/versions.py ../old . --model model.gguf --pack ./neurons --plan centred@0.7
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shared.child import PROCESSES, Child
from shared.common import PAUSE, add_models, models_so_far, parser, save, say, thread_count
from shared.models import DEFAULT_MODEL, gguf_of
from shared.names import DENSE

from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, with_spread

OLD, NEW = "old", "new"
TASKS = ("decode", "prefill", "cold", "warm", "import", "help")


class Version:
    """One checkout and where it keeps what it makes.

    Args:
        checkout: the folder that holds `sparity_edge`.
        cache: folder of its packs; None: the user's own.
        kernels: folder of its compiled kernels for warm starts.
    """

    def __init__(self, checkout: Path, cache: Path | None, kernels: Path) -> None:
        self.checkout, self.kernels = checkout.resolve(), kernels
        if not (self.checkout / "sparity_edge").is_dir():
            raise SystemExit(f"{checkout} is no checkout: there is no folder sparity_edge in it.")
        self.environment = {**os.environ, "PYTHONPATH": str(self.checkout)}
        if cache is not None:
            self.environment["SPARITY_EDGE_CACHE"] = str(cache.resolve())

    def child(self) -> Child:
        """A process that answers `decode` and `prefill`."""
        command = [sys.executable, str(PROCESSES / "version_side.py")]
        remedy = f"its own words stand above (checkout {self.checkout})."
        return Child(command, remedy, env=self.environment, cwd=self.checkout)

    def run(self, arguments: list[str], kernels: Path) -> tuple[float, float]:
        """(wall seconds, CPU seconds) of a Python started with these arguments."""
        environment = {**self.environment, "NUMBA_CACHE_DIR": str(kernels)}
        before, start = _cpu_of_children(), time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments],
            env=environment, cwd=self.checkout, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        return time.perf_counter() - start, _cpu_of_children() - before

    def commit(self) -> str:
        """What git says the checkout is; empty where there is no git."""
        words = ["git", "-C", str(self.checkout), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def _cpu_of_children() -> float:
    import resource  # Windows has none

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def dial_of(plan: str) -> dict[str, Any]:
    """The arguments of `Generator.load` that a text such as centred@0.7 or auto:0.25 stands for."""
    if plan == DENSE:
        return {}
    for mark, name in (("@", "level"), (":", "sparsity")):
        method, found, value = plan.partition(mark)
        if found:
            return {"plan": method, name: float(value)}
    raise SystemExit(f"--plan {plan} is neither PLAN@LEVEL nor PLAN:SPARSITY.")


def answers(versions: Mapping[str, Version], model: str, options: Any) -> dict[str, Any]:
    """Decoding and prompts of both sides, dense and with every plan."""
    threads, found = thread_count(options.threads), {}
    children = {side: version.child() for side, version in versions.items()}
    try:
        for plan in (DENSE, *options.plan):
            dial, source = dial_of(plan), model if plan == DENSE else options.pack or model
            for side, child in children.items():
                about = child("load", name=plan, model=source, threads=threads, **dial)
                if Path(about["package"]).parent != versions[side].checkout:
                    raise SystemExit(f"{side} ran {about['package']} instead of its checkout.")
            for task, tokens in (("decode", options.tokens), ("prefill", options.prompt)):
                if task in options.tasks:
                    name = f"{task} {plan}"
                    ours = {s: Case(child, task, plan, tokens) for s, child in children.items()}
                    found[name] = {"tokens": tokens, **interleaved(ours, options.rounds, name)}
    finally:
        for child in children.values():
            child.close()
    return found


class Case:
    """What one side answers to one command, again and again; keeps the tokens that it chose."""

    def __init__(self, child: Child, task: str, plan: str, tokens: int) -> None:
        self._call = lambda: child(task, name=plan, tokens=tokens)
        self.ids: list[list[int]] = []

    def __call__(self) -> float:
        """Seconds of one call."""
        answer = self._call()
        self.ids.append(answer["ids"])
        return float(answer["seconds"])


def interleaved(
    cases: Mapping[str, Callable[[], float]], rounds: int, what: str, warm: bool = True
) -> dict[str, Any]:
    """Seconds of both sides and their ratio, round by round."""
    samples = alternate(
        dict(cases), rounds, pause=PAUSE, say=lambda text: say(f"{what}: {text}"), warm=warm
    )
    result = compared(samples)
    ids = [case.ids for case in cases.values() if isinstance(case, Case)]
    return {**result, "same_tokens": ids[0] == ids[1]} if ids else result


def compared(samples: Mapping[str, list[float]]) -> dict[str, Any]:
    """Summaries of the seconds of both sides and of OLD over NEW."""
    return {
        **{f"{side}_seconds": summary(values) for side, values in samples.items()},
        "ratio": summary(ratios(samples[OLD], samples[NEW])),
    }


def starts(versions: Mapping[str, Version], model: str, options: Any) -> dict[str, Any]:
    """Wall and CPU seconds of starting Python, the command, and one token of the model."""
    first = ["-m", "sparity_edge", "generate", model, "--prompt", "x", "--max-tokens", "1"]
    first += ["--threads", str(thread_count(options.threads))]
    commands = {
        "cold": ("cold start", first),
        "warm": ("warm start", first),
        "import": ("import sparity_edge", ["-c", "import sparity_edge"]),
        "help": ("--help", ["-m", "sparity_edge", "--help"]),
    }
    found: dict[str, Any] = {}
    for task, (label, words) in commands.items():
        if task not in options.tasks:
            continue
        rounds = options.cold if task == "cold" else options.rounds
        cpu: dict[str, list[float]] = {side: [] for side in versions}

        def run(side: str, task: str = task, words: list[str] = words, cpu: Any = cpu) -> float:
            version = versions[side]
            if task == "cold":
                shutil.rmtree(version.kernels, ignore_errors=True)
            wall, used = version.run(words, version.kernels)
            cpu[side].append(used)
            return wall

        cases = {side: (lambda side=side: run(side)) for side in versions}
        result = interleaved(cases, rounds, label, warm=task != "cold")
        found[label] = {
            **result, "cpu": compared({side: each[-rounds:] for side, each in cpu.items()})
        }  # fmt: skip
    return found


def show(results: Mapping[str, Any]) -> list[list[str]]:
    """A line for each case, in milliseconds; of starts one for wall and one for CPU time."""
    lines = []
    for name, part in results.items():
        note = {True: "same tokens", False: "OTHER TOKENS"}.get(part.get("same_tokens"), "")
        for label, each in ((name, part), (f"{name}, CPU", part.get("cpu"))):
            if each:
                ms = [f"{1e3 * each[f'{side}_seconds']['median']:.2f}" for side in (OLD, NEW)]
                lines.append([label, *ms, with_spread(each["ratio"], 3), note])
    return lines


def _absolute(path: str) -> str:
    """The path from the root: each side runs in its own checkout."""
    return str(Path(path).resolve())


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    result = parser(__doc__, "versions")
    result.add_argument("old", type=Path, metavar="OLD", help="a checkout")
    result.add_argument("new", type=Path, metavar="NEW", help="a checkout")
    add_models(result)
    result.add_argument(
        "--plan", action="append", default=[], metavar="PLAN",
        help="such as centred@0.7 or auto:0.25; may be repeated",
    )  # fmt: skip
    result.add_argument(
        "--pack", type=_absolute, metavar="FOLDER", help="carries the plans; default: the model"
    )
    result.add_argument("--caches", type=Path, metavar="FOLDER", help="packs of each version there")
    result.add_argument("--tokens", type=int, default=64, help="decoded; default: %(default)s")
    result.add_argument("--prompt", type=int, default=512, help="tokens; default: %(default)s")
    result.add_argument("--cold", type=int, default=3, help="rounds; default: %(default)s")
    result.add_argument("--tasks", default=",".join(TASKS), help="default: %(default)s")
    return result


def main() -> int:
    options = build_parser().parse_args()
    options.tasks = options.tasks.split(",")
    if options.quick:
        options.rounds, options.cold = 2, 1
    reports = models_so_far(options.out)
    for model in options.model or [DEFAULT_MODEL]:
        source = _absolute(model) if Path(model).exists() else str(gguf_of(model))
        with tempfile.TemporaryDirectory() as kernels:
            versions = {
                side: Version(
                    checkout, options.caches and options.caches / side, Path(kernels) / side
                )
                for side, checkout in ((OLD, options.old), (NEW, options.new))
            }
            results = answers(versions, source, options)
            results |= starts(versions, source, options)
        name = Path(model).stem
        reports[name] = {
            **{side: version.commit() for side, version in versions.items()},
            "machine": machine(thread_count(options.threads)),
            "rounds": options.rounds,
            "results": results,
        }
        save(options.out, {"models": reports})
        print(table([name, "old ms", "new ms", "old / new", ""], show(results)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
