"""Shell completion: scripts by shtab from the parser of all commands, and the words they ask for.

What an argument completes to follows from its metavar. Commands, options and choices stand in the
script; names of models and plans are asked for with `sparity-edge completion WORDS`, so that they
are those of the moment. Knows nothing of what commands do.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from sparity_edge.cli.options.shell_completion import SHELLS
from sparity_edge.terminal.screen import neutral


def completion(arguments: Namespace) -> None:
    """`sparity-edge completion`: a script, or the words that a script asks for."""
    if arguments.what in SHELLS:
        print(script(arguments.what))
        return
    for word in words(arguments.what):
        print(neutral(word))


def script(shell: str) -> str:
    """The completion script of a shell."""
    import shtab

    from sparity_edge.cli.main import build_parser

    parser = build_parser()
    kinds = {
        "FILE": shtab.FILE,
        "DIR": shtab.DIR,
        "OUT": shtab.DIR,
        "PLAN": shtab.cmd(_asking("plans")),
        "PACK": shtab.cmd(_asking("packs")),
        "KEPT": shtab.cmd(_asking("kept")),
        "MODEL": MODEL_WORDS,
        "SOURCE": MODEL_WORDS,
    }
    for action in _actions(parser):
        if action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def words(kind: str) -> list[str]:
    """What can be named now: "models", those "kept", "packs" of them, or "plans" of any pack."""
    from converters.pack_cache import entries
    from converters.sources.remote.downloads import downloads
    from converters.sources.remote.hub import ALIASES

    packs = {entry.name for entry in entries() if entry.options}  # a damaged one has none
    if kind == "packs":
        return sorted(packs)
    if kind == "plans":
        return sorted(_plans())
    fetched = {each.name for each in downloads()}
    return sorted(packs | fetched | set(ALIASES if kind == "models" else ()))


def _plans() -> set[str]:
    from converters.pack_cache import entries
    from sparity_edge.errors import FormatError
    from sparity_edge.packed.manifest import listed_files
    from sparity_edge.packed.shards import PLAN_FILE

    found = set()
    for entry in entries():
        try:
            listed = listed_files(entry.path)
        except (FormatError, OSError):  # damaged, which is no matter here
            continue
        found |= {match[1] for name in listed if (match := PLAN_FILE.fullmatch(name))}
    return found


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _asking(kind: str) -> str:
    return f"sparity-edge completion {kind} 2>/dev/null"


# A model is a name, a file or a folder: what shtab calls a completion type, for each shell.
MODEL_WORDS: dict[str, Any] = {
    "bash": "_sparity_edge_models",
    "zsh": "_sparity_edge_models",
    "fish": f"({_asking('models')}; __fish_complete_path (commandline -ct))",
    "preamble": {
        "bash": f"""
_sparity_edge_models() {{
  compgen -W "$({_asking("models")})" -- $1
  _shtab_compgen_files $1
}}
""",
        "zsh": f"""
_sparity_edge_models() {{
  local -a models
  models=(${{(f)"$({_asking("models")})"}})
  compadd -a models
  _files
}}
""",
    },
}
