"""What `push` does, given the understood command line.

What goes up, and how, is in converters.publish; here is what users see of it.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sparity_edge.cli.commands.loading import progress_bars, side_screen
from sparity_edge.errors import OptionError
from sparity_edge.progress import silent
from sparity_edge.terminal.screen import is_dumb, neutral

if TYPE_CHECKING:
    from converters.publish.contents import Contents


def push(arguments: Namespace) -> None:
    """`sparity-edge push`: a packed folder goes to the Hub.

    Raises:
        OptionError: the name is none of a repository, or the licence is not known.
        FormatError, ConfigError: the folder is no packed model, or damaged.
        SourceError: the Hub refuses, or cannot be reached.
    """
    from converters.publish.contents import contents_of
    from converters.publish.upload import MESSAGE, upload

    _check(arguments)
    repository = arguments.repository
    screen = side_screen()
    with progress_bars(arguments, screen) as bars:
        folder = Path(arguments.folder).expanduser()
        contents = contents_of(folder, repository, arguments.license, bars)
        if contents.unmeasured:
            first = contents.unmeasured[0]
            screen.note(
                f"No KL has been measured of {', '.join(contents.unmeasured)}, so the card has "
                f"none; sparity-edge chat {folder} --plan {first} --sparsity 0.3 measures it once."
            )
        if arguments.dry_run:
            _show(contents, repository)
            return
    # At a terminal the Hub's client draws how far each file is; elsewhere whole files are told.
    drawn = sys.stderr.isatty() and not is_dumb()
    with progress_bars(arguments, screen) as bars:
        address = upload(
            contents, repository,
            private=arguments.private, revision=arguments.revision,
            message=arguments.commit_message or MESSAGE,
            progress=silent if drawn else bars, bars=drawn,
        )  # fmt: skip
    print(neutral(address))


def _check(arguments: Namespace) -> None:
    """Refuse what is no name of a repository or of a branch, before anything is read."""
    from converters.sources.remote.hub_name import parse_hub_name

    name = parse_hub_name(arguments.repository)
    if name is None or name.repository != arguments.repository:
        raise OptionError(
            f"{arguments.repository!r} is no name of a repository; give org/name, org being your "
            "name on the Hub or that of your organisation."
        )
    branch = arguments.revision
    if branch is not None and parse_hub_name(f"{name.repository}@{branch}") is None:
        raise OptionError(f"--revision {branch!r} is no name of a branch; give one like v1.")


def _show(contents: Contents, repository: str) -> None:
    total = sum(contents.sizes.values())
    width = max(map(len, contents.sizes))
    print(f"{len(contents.sizes)} files, {total / 1e6:.1f} MB, would go to {repository}:")
    for name, size in sorted(contents.sizes.items()):
        print(neutral(f"  {name:{width}}  {size:>13,}"))
    print("\nThe model card, README.md:\n")
    print(neutral(contents.texts["README.md"].decode()), end="")
