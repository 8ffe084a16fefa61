"""The options that say what an answer must follow: a JSON schema, a regex or a grammar.

Files are read here; what is in them is understood where texts are made.
"""

from __future__ import annotations

import argparse

from sparity_edge.errors import OptionError
from sparity_edge.text.text_file import read_text_file


def add_constraint_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser --schema, --regex and --grammar; `constraint_options` reads them."""
    group = parser.add_argument_group(
        "structured output",
        "What the answer must follow (needs the extra [server]).",
    )
    group.add_argument("--schema", metavar="FILE", help="a JSON schema that it must be valid by")
    group.add_argument("--regex", metavar="TEXT", help="a regular expression that it must match")
    group.add_argument("--grammar", metavar="FILE", help="a grammar, as Lark or llguidance has it")


def constraint_options(arguments: argparse.Namespace) -> dict[str, str]:
    """What was given, as the keyword arguments of `Generator.stream`.

    Raises:
        OptionError: a file cannot be read, or is no text.
    """
    found = {name: getattr(arguments, name) for name in ("schema", "regex", "grammar")}
    found = {name: value for name, value in found.items() if value is not None}
    for name in found.keys() & {"schema", "grammar"}:
        try:
            found[name] = read_text_file(found[name])
        except OSError as error:
            raise OptionError(f"--{name} {found[name]}: {error.strerror or error}.") from None
    return found
