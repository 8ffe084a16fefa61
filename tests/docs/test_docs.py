"""README and docs against the code: files, options, defaults, chat commands, links, the snippet."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import make_files
import pytest
from own_files import own_files
from rooms import HOUSE, all_arrows, between, modules, room_of

from sparity_edge import SamplingParams

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in own_files() if name.endswith(".md")
}
README = PAGES["README.md"]


def marked(name: str) -> str:
    """The code block between the markers `<!-- name: begin -->` and `<!-- name: end -->`."""
    blocks = re.findall(
        rf"<!-- {name}: begin -->\n```\w+\n(.*?)```\n<!-- {name}: end -->", README, re.DOTALL
    )
    assert len(blocks) == 1, f"{name}: {len(blocks)} blocks"
    return str(blocks[0])


def section(title: str, page: str = "README.md") -> str:
    return PAGES[page].split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(page: str) -> list[list[str]]:
    """The words of every command of ours, on a line of its own or inside prose."""
    found = re.findall(r"^(sparity-edge .*)$|`(sparity-edge\s[a-z][^`]*)`", page, re.MULTILINE)
    return [(line or inside).partition(" #")[0].split() for line, inside in found]


@functools.cache
def help_of(*command: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "sparity_edge", *command, "--help"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return run.stdout


def test_the_tree_lists_exactly_the_files_that_exist() -> None:
    assert PAGES["docs/files.md"] == make_files.render(), "run python docs/make_files.py"


@pytest.mark.parametrize("name", ["chat", "tests"])
def test_quick_start_commands_are_one_line_each(name: str) -> None:
    lines = marked(name).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("python3 -m venv .venv && .venv/bin/pip install ")


@pytest.mark.parametrize("page", [name for name in PAGES if commands(PAGES[name])])
def test_commands_and_options_of_a_page_exist(page: str) -> None:
    for line in commands(PAGES[page]):
        text = help_of(line[1])
        for option in (word for word in line if word.startswith("--")):
            assert re.search(rf"{option}\b", text), f"{line[1]} has no {option}"


def test_every_command_is_in_the_docs() -> None:
    names = re.findall(r"^  +([a-z]+)  +\S", help_of().split("commands:")[1], re.MULTILINE)
    assert "chat" in names
    commands = section("Commands", "docs/usage.md")
    for name in names:
        assert re.search(rf"^sparity-edge {name}\b", commands, re.MULTILINE), name


def test_the_chat_commands_are_listed_in_full() -> None:
    from sparity_edge.chat.commands import COMMANDS

    listed = section("Commands", "docs/usage.md").split("In a chat:")[1]
    assert re.findall(r"`(/\w+)", listed) == list(COMMANDS)


def test_the_sampling_table_has_every_parameter_and_its_default() -> None:
    sampling = section("Sampling", "docs/usage.md")
    defaults = {field.name: field.default for field in dataclasses.fields(SamplingParams)}
    assert set(defaults) == set(re.findall(r"`(\w+)`", sampling)) - {"set"}
    for row in sampling.splitlines():
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) > 4 and re.fullmatch(r"[\d.]+", cells[3]):
            for name in re.findall(r"`(\w+)`", cells[2]):
                assert defaults[name] == float(cells[3]), name


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for target, _, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(#([^)]*))?\)", PAGES[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
            assert heading in slugs, f"{page}: {target}#{heading}"


def test_the_rooms_are_those_of_the_code_in_their_order() -> None:
    lines = marked("rooms").splitlines()
    assert len(lines) <= 25
    listed, package = [], ""
    for line in lines:
        names = [name.rstrip("/") for name in re.split(r"\s{3,}", line.strip())[0].split()]
        if line.startswith(" "):
            listed += [f"{package}.{name}" for name in names]
        else:
            (package,) = names
            listed += [package] if package != "sparity_edge" else []
    outside = {"bench", "tests"}
    aliases = {"sparity_edge", "sparity_edge.__main__", "sparity_edge.lm_eval_adapter"}
    there = {room_of(name, HOUSE) for name in modules()} - aliases
    assert [name for name in listed if name not in outside] == [
        room for room in HOUSE if room in there
    ]


def test_the_drawing_of_the_rooms_shows_real_imports() -> None:
    page = PAGES["docs/how-it-works.md"]
    lines = page.split("rooms-graph: begin")[1].split("rooms-graph: end")[0].splitlines()
    drawn = set()
    for line in (line for line in lines if re.match(r" +\w", line) and "-->" in line):
        stations = [station.strip().split(" & ") for station in line.split("-->")]
        for here, there in itertools.pairwise(stations):
            drawn |= {(one, other) for one in here for other in there}
    real = {
        (here.removeprefix("sparity_edge."), there.removeprefix("sparity_edge."))
        for here, there in between(HOUSE, all_arrows())
    }
    assert drawn <= real
    front = {"sparity_edge", "__main__", "lm_eval_adapter"}
    assert {room for arrow in drawn for room in arrow} == {r for pair in real for r in pair} - front


def test_packages_are_listed_in_full() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.search(r"^packages = \[(.*?)\]", pyproject, re.MULTILINE | re.DOTALL)
    assert packages
    folders = {
        Path(file).parent.as_posix().replace("/", ".")
        for file in own_files()
        if file.endswith(".py") and file.startswith(("sparity_edge/", "converters/"))
    }
    assert set(re.findall(r'"([\w.]+)"', packages[1])) == folders


def test_the_snippet_runs(
    checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    snippet = marked("snippet")
    assert snippet.count('"smollm2-135m"') == 1
    code = snippet.replace('"smollm2-135m"', repr(str(checkpoint("llama_gqa"))))
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out
