"""The options of commands that keep what they read of prompts; imports nothing heavy."""

from __future__ import annotations

import argparse

from sparity_edge.choices import CACHE_DIR_MB


def add_prefix_options(parser: argparse.ArgumentParser) -> None:
    """Let a command keep beginnings of prompts in a folder.

    Args:
        parser: of the command.
    """
    group = parser.add_argument_group("prompts that begin alike")
    group.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="keep what was read of prompts there, for other processes and after a restart",
    )
    group.add_argument(
        "--cache-dir-mb",
        type=int,
        default=CACHE_DIR_MB,
        metavar="N",
        help=f"MB that its files may have (default: {CACHE_DIR_MB})",
    )
