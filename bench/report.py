"""One command for every table and figure: measures, or draws what was measured.

    python bench/report.py --render                    # pages and docs/figures from bench/results
    python bench/report.py --quick                     # measures SmolLM2 anew into report/
    python bench/report.py --quick --again speed       # the same, keeping KL and plans
    python bench/report.py --compare report report-2   # the ratios of two runs, side by side

--quick runs the scripts that STEPS names, one after another, and writes report/report.md with its
own figures; it goes on where it was broken off. Without llama-cpp-python (peers.py says how it is
built) it measures our side alone. Knows nothing of what a script measures.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pages import serving
from pages.captions import FIGURE_BLOCKS, FIGURES, drawn_from
from pages.ratios import compare
from pages.report_methods import TABLES
from pages.tables import SECTIONS, Results, Section
from shared.common import RESULTS, save, say

ROOT = Path(__file__).resolve().parent.parent
FIGURE_FOLDER = ROOT / "docs" / "figures"
BLOCK = re.compile(r"(<!-- (?P<name>[\w-]+): begin -->\n)(.*?)(<!-- (?P=name): end -->)", re.DOTALL)
MODEL = "smollm2-135m@wheel"
QUICK_LADDER = ["ladder.py", "--quick", "--label", "SmolLM2", "--dial", "int4"]
STEPS = {
    "calibrate": ["-m", "sparity_edge", "calibrate", MODEL, "--dtype", "int4",
                  "--methods", "chess,centred,auto", "--tokens", "16384"],
    "quality": [*QUICK_LADDER, "--only", "quality"],
    "speed": [*QUICK_LADDER, "--only", "speed", "--rounds", "12"],
    "peers": ["peers.py", "--rounds", "12"],
    "parts": ["parts.py", "--dtype", "int4", "--label", "SmolLM2 int4",
              "dense", "auto:0.25", "chess@0.5", "centred@0.5"],
    "roofline": ["roofline.py", "--quick"],
    "latency": ["latency.py", "--quick", "--contexts", "0", "--starts", "0"],
}  # fmt: skip
WRITES = {"quality": "ladder", "speed": "ladder"}  # results files that are not named as the step
TIMED = ("speed", "peers", "parts", "roofline", "latency")
NEED_PEER = ("peers",)


def all_blocks() -> dict[str, Section]:
    """What writes the text between markers, by their name."""
    return {**SECTIONS, **FIGURE_BLOCKS, **TABLES, **serving.TABLES}


def pages() -> list[Path]:
    """The pages that markers are looked for on."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read_results(folder: Path) -> dict[str, Any]:
    """Every results file of a folder, by its name without .json."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }


def filled(page: Path, results: Results) -> str:
    """The text of a page with all that has a generator written anew."""
    blocks = all_blocks()

    def write(found: re.Match[str]) -> str:
        if found["name"] not in blocks:
            return found[0]
        text = blocks[found["name"]].write(results)
        if page.parent != FIGURE_FOLDER.parent:
            text = text.replace("](figures/", "](docs/figures/")
        return f"{found[1]}{text}\n{found[4]}"

    return BLOCK.sub(write, page.read_text(encoding="utf-8"))


def render() -> None:
    """Write pages and figures from bench/results."""
    results = read_results(RESULTS)
    for page in pages():
        text = filled(page, results)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            say(f"written: {page}")
    draw_figures(results, FIGURE_FOLDER)


def draw_figures(results: Results, folder: Path) -> None:
    """Draw the figures whose results are there, those that are fresh excepted."""
    from pages.captions import checksum

    for name, figure in FIGURES.items():
        path = folder / f"{name}.svg"
        if not all(need in results for need in figure.needs):
            continue
        if path.exists() and drawn_from(path) == checksum(name, results):
            continue
        try:
            from pages.figures import draw
        except ImportError as error:
            raise SystemExit(
                f"Figures need {error.name} (pip install 'sparity-edge[bench]')."
            ) from None
        draw(name, results, path)
        say(f"written: {path}")


def run_steps(options: argparse.Namespace) -> bool:
    """Measure what --quick measures, step by step; how long each took is kept with the results.

    Returns:
        Whether all has been measured.
    """
    folder = options.out / "results"
    peer = has_peer(options.peer_python)
    if not peer:
        say(
            "No llama-cpp-python: only our side is measured (peers.py --help says how to build it)."
        )
    times_path = folder / "steps.json"
    times: dict[str, float] = read_results(folder).get("steps", {})
    if options.again:
        times = {name: taken for name, taken in times.items() if name not in TIMED}
    for name in options.steps or STEPS:
        if name in times or (name in NEED_PEER and not peer):
            continue
        say(f"== {name}")
        start = time.perf_counter()
        subprocess.run(command(name, options, peer), check=True, cwd=ROOT)
        times[name] = round(time.perf_counter() - start, 1)
        save(times_path, times)
    minutes = sum(times.values()) / 60
    say(f"{minutes:.1f} minutes: " + ", ".join(f"{name} {t:.0f} s" for name, t in times.items()))
    return all(name in times or (name in NEED_PEER and not peer) for name in STEPS)


def command(name: str, options: argparse.Namespace, peer: bool) -> list[str]:
    """The words that run a step."""
    script, *words = STEPS[name]
    if script == "-m":
        return [sys.executable, script, *words]
    words = [sys.executable, str(ROOT / "bench" / script), *words]
    words += ["--out", str(options.out / "results" / f"{WRITES.get(name, name)}.json")]
    if options.threads:
        words += ["--threads", str(options.threads)]
    if script in ("ladder.py", "peers.py"):
        words += ["--peer-python", options.peer_python]
    if script == "ladder.py":
        words += ["--text", str(options.text)] if options.text else []
        words += ["--no-peer"] if not peer else []
        words += ["--again", "speed"] if options.again and name == "speed" else []
    return words


def has_peer(python: str) -> bool:
    """Whether a Python has llama-cpp-python."""
    run = subprocess.run([python, "-c", "import llama_cpp"], capture_output=True, check=False)
    return run.returncode == 0


def write_report(folder: Path) -> None:
    """report.md with all tables and figures whose results are there."""
    results = read_results(folder / "results")
    draw_figures(results, folder / "figures")
    text = ["# Quick report\n"]
    for name, block in all_blocks().items():
        if all(need in results for need in block.needs):
            text.append(f"## {name}\n\n{block.write(results)}\n")
    (folder / "report.md").write_text("\n".join(text), encoding="utf-8")
    say(f"written: {folder / 'report.md'}")


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--render", action="store_true", help="draw only")
    add("--quick", action="store_true", help="measure SmolLM2, under 15 minutes on two cores")
    add("--compare", nargs=2, type=Path, metavar="FOLDER", help="two folders of --quick")
    add("--out", type=Path, default=Path("report"), help="of --quick; default: %(default)s")
    add("--text", type=Path, help="of the KL; default: the help texts of Python, from their end")
    add("--steps", nargs="*", choices=STEPS, metavar="STEP", help=f"of {', '.join(STEPS)}")
    add("--again", choices=("speed", "all"), help="forget what an earlier run measured")
    add("--threads", type=int, help="default: all physical cores")
    add("--peer-python", default=sys.executable, metavar="PATH", help="that has llama-cpp-python")
    options = parser.parse_args()
    if options.again == "all":
        shutil.rmtree(options.out / "results", ignore_errors=True)
    if options.compare:
        print(compare(*(read_results(each / "results") for each in options.compare)))
    elif options.quick:
        options.out = options.out.resolve()
        if run_steps(options):
            write_report(options.out)
    elif options.render:
        render()
    else:
        parser.error("say --render, --quick or --compare")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
