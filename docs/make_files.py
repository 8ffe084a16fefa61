"""Writes docs/files.md, the tree of all files with what each of them holds: run after adding one.

What a Python file holds is the first sentence of its docstring; other files are described here.
`python docs/make_files.py` writes the page; the tests compare it with `render()`. A new file counts
once git knows it, so that nothing a user keeps in the clone is listed.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import sys

from own_files import ROOT, not_yet_added, own_files

PAGE = ROOT / "docs" / "files.md"
WIDTH = 132
# Files without a docstring, by the pattern of their path.
OTHERS = {
    "README.md": "what it is, quick start, what it gains",
    "CHANGELOG.md": "what changed, by version",
    "CONTRIBUTING.md": "how to work on it",
    "LICENSE": "Apache License, version 2.0",
    "pyproject.toml": "dependencies and settings of the tools",
    ".gitignore": "what is not the project's own",
    ".ci/run": "all checks in a fresh environment",
    ".ci/matrix": "the tests with every Python that is promised",
    ".ci/common.sh": "what both of them share",
    "bench/results/*.json": "figures of bench/{stem}.py",
    "bench/server/varied.json": "25 schemas of all sorts, and what an answer by each is about",
    "converters/allocate/cost_curves/*.json": "cost curves by bench/costs.py --ship",
    "docs/figures/page-*.png": "the server's page, by docs/make_screenshots.py",
    "docs/figures/*.svg": "a figure of bench/report.py",
    "docs/*.md": "{heading}",
    "tests/golden/quantised.npz": "what other libraries read, by make_quantised_goldens.py",
    "tests/golden/lora.npz": "what peft computes, by tests/golden/make_lora_goldens.py",
    "tests/golden/pieces.json": "what sentencepiece gives, by tests/golden/make_piece_goldens.py",
    "tests/golden/*.npz": "what transformers computes, by tests/golden/make_goldens.py",
    "tests/golden/vocabularies.json": "counts by tests/golden/compare_vocabularies.py",
    "tests/golden/*.json": "what transformers computes, by tests/golden/make_tokenizer_goldens.py",
    "findings/*.sh": "what a real library does otherwise than expected",
    "sparity_edge/server/page/index.html": "the page that the server shows",
    "sparity_edge/server/page/page.css": "its looks",
    "sparity_edge/server/page/icon.svg": "its icon",
    "sparity_edge/server/page/vendor/*.js": "npm package: vendor/README.md says which",
    "sparity_edge/server/page/vendor/*.LICENSE": "its licence",
    "sparity_edge/server/page/vendor/README.md": "where the vendored libraries come from",
    "sparity_edge/server/page/*.js": "{comment}",
    "*/py.typed": "says that the package has types",
}
HEADER = """# Files

The tree of all files; `python docs/make_files.py` writes this page. Which room imports which is
drawn in [how it works](how-it-works.md).

```
"""


def render() -> str:
    """The page."""
    lines: list[str] = []
    above: tuple[str, ...] = ()
    for name in own_files():
        folders = tuple(name.split("/")[:-1])
        for level, folder in enumerate(folders):
            if above[: level + 1] != folders[: level + 1]:
                lines.append(f"{'  ' * level}{folder}/")
                above = folders[: level + 1]
        above = folders
        lines += _entry(name, len(folders))
    return HEADER + "\n".join(lines) + "\n```\n"


def _entry(name: str, level: int) -> list[str]:
    """One file: its name, then what it holds, cut at WIDTH."""
    start = f"{'  ' * level}{name.rpartition('/')[2]}".ljust(30) + " "
    text = start + " ".join(_described(name).split())
    return [text if len(text) <= WIDTH else text[: WIDTH - 3].rsplit(" ", 1)[0] + " ..."]


def _described(name: str) -> str:
    """The first sentence of a file's docstring, or what OTHERS says of it."""
    path = ROOT / name
    if path.suffix == ".py":
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if not docstring:
            raise SystemExit(f"{name} has no docstring to describe it with.")
        return re.split(r"(?<=[.;])\s|\n\n", docstring)[0].rstrip(".;")
    for pattern, text in OTHERS.items():
        if not fnmatch.fnmatch(name, pattern):
            continue
        if "{heading}" in text:
            return path.read_text(encoding="utf-8").split("\n")[0].lstrip("# ")
        if "{comment}" in text:
            comment = path.read_text(encoding="utf-8").split("\n\n")[0].replace("// ", "")
            return re.split(r"(?<=[.;])\s", comment)[0].rstrip(".;")
        return text.format(stem=path.stem)
    raise SystemExit(f"{name} is described nowhere; add its pattern to docs/make_files.py.")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8", newline="\n")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: {len(own_files())} files\n")
    sys.stdout.writelines(not_yet_added())
