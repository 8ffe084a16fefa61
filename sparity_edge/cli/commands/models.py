"""What `pull`, `list` and `rm` do, given the understood command line.

What is kept, and how it is removed, is in converters.inventory; here is what users see of it.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.cli.commands.loading import progress_bars, side_screen
from sparity_edge.errors import OptionError
from sparity_edge.progress import CallContext
from sparity_edge.terminal.json_output import print_json
from sparity_edge.terminal.screen import neutral

if TYPE_CHECKING:
    from converters.inventory.kept import Kept

KEY_DIGITS = 12
WORDS = {"downloads": "download", "packs": "pack"}  # of --only


def pull(arguments: Namespace) -> None:
    """`sparity-edge pull`: a model comes to this machine, and is looked at whether it can run.

    Raises:
        OptionError: it is here already, as a file or folder that the user named.
        SourceError: there is no such model, it cannot be fetched, or cannot run here.
    """
    from converters.sources import exists, open_source

    if arguments.model and exists(Path(arguments.model)):
        raise OptionError(f"{arguments.model} is a file or folder here already; nothing to fetch.")
    with (
        progress_bars(arguments, side_screen()) as bars,
        open_source(arguments.model, CallContext(False, bars, bars.notify)) as source,
    ):
        path = source.files[0]
    print(neutral(str(path if path.suffix.lower() == ".gguf" else path.parent)))


def list_models(arguments: Namespace) -> None:
    """`sparity-edge list`: one line for each model that is kept."""
    from converters.inventory.kept import kept

    found = kept()
    if arguments.json:
        print_json([_facts(each) for each in found])
        return
    if not found:
        print("No models are kept; fetch one with sparity-edge pull MODEL.")
        return
    for line in _table(found):
        print(neutral(line))
    print(f"{len(found)} kept, {_size(sum(each.nbytes for each in found)).strip()}.")


def rm(arguments: Namespace) -> None:
    """`sparity-edge rm`: models are removed, after asking."""
    from converters.inventory.kept import kept, named, remove

    found, kind = kept(), WORDS.get(arguments.only)
    chosen = {id(each): each for name in arguments.names for each in named(name, found, kind)}
    going = list(chosen.values())
    if not arguments.yes and not _agreed(going):
        print("Nothing was removed.", file=sys.stderr)
        return
    remove(going)
    print(f"{len(going)} removed, {_size(sum(each.nbytes for each in going)).strip()} freed.")


def _agreed(going: Sequence[Kept]) -> bool:
    """Whether the user, who is shown what would go, says yes.

    Raises:
        OptionError: nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise OptionError("rm asks before it removes, and nobody can answer here; give --yes.")
    for line in _table(going):
        print(neutral(line), file=sys.stderr)
    print("Remove? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _table(found: Sequence[Kept]) -> list[str]:
    rows = [("NAME", "SIZE", "FORMAT", "FROM", "LAST USED", "KEY")]
    rows += [
        (each.name, _size(each.nbytes), each.form, each.origin, _day(each), _key(each))
        for each in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def _day(each: Kept) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(each.last_used))


def _key(each: Kept) -> str:
    return (each.key or "")[:KEY_DIGITS]


def _facts(each: Kept) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "name": each.name,
        "format": each.form,
        "from": each.origin,
        "bytes": each.nbytes,
        "last_used_unix_seconds": round(each.last_used),
        "path": str(each.path),
        "key": each.key,
    }
