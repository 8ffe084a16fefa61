"""The options of speculation: whether tokens are guessed, and by which draft model besides."""

from __future__ import annotations

from typing import Any


def add_speculation_options(group: Any) -> None:
    """Put `--no-speculation` and `--draft` on a parser or a group of one."""
    group.add_argument(
        "--no-speculation", action="store_false", dest="speculation",
        help="decode token by token, also where guesses would be quicker (the text is the same)",
    )  # fmt: skip
    group.add_argument(
        "--draft", metavar="MODEL",
        help="a smaller model of the same vocabulary that guesses tokens, where that pays here",
    )  # fmt: skip
