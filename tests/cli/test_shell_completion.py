"""Shell completion: the scripts run in the shells that are here, and the words they ask for."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from plan_families import family

from converters.pack_options import PackOptions
from converters.store import prepare
from sparity_edge.cli.commands import shell_completion
from sparity_edge.cli.main import build_parser, main
from sparity_edge.cli.options.shell_completion import SHELLS, WORDS
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import add_plan

# What bash does at a TAB: the function that `complete` names, with the words typed so far.
BASH = """
source ./script
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
function=$(complete -p sparity-edge | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function "$1" "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
CASES = [
    (["do"], {"doctor"}),
    (["cache", ""], {"list", "clear"}),
    (["chat", "--dtype", ""], {"f32", "bf16", "int8", "int4"}),
    (["chat", "--cache-dt"], {"--cache-dtype"}),
    (["convert", "x.gguf", "--layout", "ne"], {"neurons"}),
    (["chat", "smol"], {"smollm2-135m", "smollm2-135m@wheel"}),
    (["info", "my-mo"], {"my-model.gguf"}),
    (["plan", "show", "x", ""], {"chess"}),
    (["perplexity", "--text", "boo"], {"book.txt"}),
    (["chat", "-p", "Two words.", "--off"], {"--offline"}),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a few files, where `sparity-edge` is a command that knows one plan."""
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "sparity-edge"
    python = shlex.join([sys.executable, "-m", "sparity_edge"])
    shim.write_text(f'#!/bin/sh\n[ "$2" = plans ] && echo chess && exit\nexec {python} "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent), prepend=os.pathsep)
    for name in ("book.txt", "my-model.gguf"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None or os.name == "nt":
        pytest.skip(f"{name} is not installed")
    return found


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(("line", "expected"), CASES, ids=lambda each: " ".join(sorted(each)))
def test_bash_completes(line: list[str], expected: set[str], place: Path) -> None:
    bash = shell("bash")
    (place / "script").write_text(shell_completion.script("bash"), encoding="utf-8")
    out = run(place, bash, "--norc", "-c", BASH, "bash", "sparity-edge", *line)
    assert set(out.split()) == expected


@pytest.mark.parametrize(("line", "expected"), CASES, ids=lambda each: " ".join(sorted(each)))
def test_fish_completes(line: list[str], expected: set[str], place: Path) -> None:
    fish = shell("fish")
    (place / "script").write_text(shell_completion.script("fish"), encoding="utf-8")
    typed = shlex.join(["sparity-edge", *line[:-1]]) + " " + line[-1]
    out = run(place, fish, "--no-config", "-c", "source ./script; complete -C $argv[1]", typed)
    assert {each.split("\t")[0] for each in out.splitlines()} == expected


@pytest.mark.parametrize("name", SHELLS)
def test_scripts_are_valid(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", name]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    (tmp_path / "script").write_text(out, encoding="utf-8")
    assert run(tmp_path, shell(name), "-n", "script") == ""


@pytest.mark.parametrize("name", SHELLS)
def test_scripts_know_every_command_and_option(name: str) -> None:
    text = shell_completion.script(name)
    for action in shell_completion._actions(build_parser()):
        for option in action.option_strings:
            assert option.lstrip("-") in text
        for choice in action.choices or ():
            assert str(choice) in text


def test_words_are_those_of_the_moment(
    tmp_path: Path,
    checkpoint: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path))
    assert shell_completion.words("models") == ["smollm2-135m", "smollm2-135m@wheel"]
    assert shell_completion.words("packs") == shell_completion.words("plans") == []
    model = str(checkpoint("llama_gqa"))
    folder = prepare(model, PackOptions(layout="mixed"))
    add_plan(open_folder(folder), family(open_packed(folder), "mixed"))
    assert shell_completion.words("packs") == shell_completion.words("kept") == [model]
    assert model in shell_completion.words("models")
    assert main(["completion", "plans"]) == 0
    assert capsys.readouterr().out.split() == shell_completion.words("plans") == ["by-hand"]
    (folder / "sparity.json").write_bytes(b"{}")
    assert shell_completion.words("packs") == shell_completion.words("plans") == []


def test_a_wrong_shell_is_told_the_shells_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(["completion", "tcsh"])
    error = capsys.readouterr().err
    assert all(shell in error for shell in SHELLS)
    assert not any(word in error for word in WORDS)
    assert build_parser().parse_args(["completion", "plans"]).what == "plans"
