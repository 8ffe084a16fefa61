"""The parser of the command line: argparse that takes what people type, and answers mistakes.

The value of an option may begin with a hyphen (`--stop '---'`); an unknown command or option is
answered with the one that was meant, also where another program's name for it was used. Knows
nothing of which commands there are.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from sparity_edge.spelling import nearest
from sparity_edge.terminal.screen import one_line

_NUMBER = re.compile(r"-\.?\d")
# How other programs call what is an option or an operand here; operands in capitals.
_ELSEWHERE = {
    "-m": "MODEL",
    "--model": "MODEL",
    "-o": "OUT",
    "--out": "OUT",
    "--output": "OUT",
    "--outfile": "OUT",
    "-n": "--max-tokens",
    "--predict": "--max-tokens",
    "--n-predict": "--max-tokens",
    "--max-new-tokens": "--max-tokens",
    "-c": "--max-context",
    "--ctx-size": "--max-context",
    "--num-ctx": "--max-context",
    "-t": "--threads",
    "-s": "--seed",
    "--temp": "--temperature",
    "--repeat-penalty": "--repetition-penalty",
    "-sys": "--system",
    "--system-prompt": "--system",
    "-f": "--text",
    "--file": "--text",
    "-V": "--version",
    "version": "--version",
    "help": "--help",
}
# How other programs call what is a command here.
_COMMANDS = {
    "run": "chat",
    "download": "pull",
    "get": "pull",
    "upload": "push",
    "publish": "push",
    "ls": "list",
    "models": "list",
    "remove": "rm",
    "delete": "rm",
    "show": "info",
    "complete": "generate",
    "quantize": "convert",
}
_OPERANDS = {"MODEL": "model", "OUT": "out"}  # -> the attribute that argparse gives it


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the list of all options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"formatter_class": _HelpFormatter, "allow_abbrev": False}
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and one sentence."""
        self.exit(2, f"sparity-edge: {one_line(message)}; see `{self.prog} --help`.\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse does, after the words were joined and looked through for unknown ones."""
        words = self._join_values(_own_words(args))
        commands = self._commands()
        if commands is not None and not words:
            self.print_help()
            self.exit(0)
        if "-h" not in words and "--help" not in words:
            self._refuse_unknown(words, commands)
        parsed, surplus = super().parse_known_args(words, namespace)
        if surplus:
            self.error(
                f"{surplus[0]!r} is more than {self._form()} takes; "
                "a text with blanks belongs in quotation marks"
            )
        return parsed, surplus

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """As argparse does, but `--stop=--` has a value, which argparse would drop."""
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def _join_values(self, words: Sequence[str]) -> list[str]:
        """`--stop ---` as `--stop=---`: argparse takes no value that begins with a hyphen."""
        joined: list[str] = []
        rest = iter(words)
        for word in rest:
            joined.append(word)
            if word == "--":
                break
            action = self._option_string_actions.get(word)
            if action is None or action.nargs is not None:
                continue
            value = next(rest, None)
            if value is None:
                break
            if not self._is_value(value, action):
                self._refuse_value(word, value)
            joined[-1:] = (
                [f"{_long_name(action)}={value}"] if value.startswith("-") else [word, value]
            )
        return [*joined, *rest]

    def _is_value(self, word: str, action: argparse.Action) -> bool:
        """Whether a word behind an option is its value: all but options, if it takes free text."""
        if not word.startswith("-") or word == "-":
            return True
        if self._knows(word):
            return False
        return action.metavar == "TEXT" or not word.startswith("--")

    def _refuse_value(self, option: str, value: str) -> NoReturn:
        long = _long_name(self._option_string_actions[option])
        self.error(f"{option} needs a value; one that begins with a hyphen is {long}={value}")

    def _refuse_unknown(
        self, words: Sequence[str], commands: argparse._SubParsersAction[Any] | None
    ) -> None:
        """End with a suggestion where a command or an option of these words is not known."""
        for word in words:
            if word == "--":
                return
            if not word.startswith("-") or word == "-" or " " in word or _NUMBER.match(word):
                if commands is None:
                    continue
                if word not in commands.choices:
                    self._refuse_command(word, list(commands.choices))
                return  # what follows is the command's
            if not self._knows(word):
                self._refuse_option(word.partition("=")[0], commands)

    def _refuse_command(self, word: str, known: Sequence[str]) -> NoReturn:
        near = nearest(word, [*known, "--version", "--help"])
        meant = self._elsewhere(word) or _named_elsewhere(word, known) or near
        if meant is not None:
            self.error(f"there is no command {word!r}, did you mean {self.prog} {meant}?")
        if "/" in word or word.endswith(".gguf"):
            example = f"{self.prog} {known[0]} {word}"
            self.error(f"there is no command {word!r}; a model comes after one, as in {example}")
        self.error(f"there is no command {word!r}; there are {', '.join(known)}")

    def _refuse_option(
        self, option: str, commands: argparse._SubParsersAction[Any] | None
    ) -> NoReturn:
        meant = self._elsewhere(option)
        if meant == "MODEL" and commands is not None:
            names = list(commands.choices)
            self.error(f"there is no option {option}; write {self.prog} {names[0]} MODEL")
        if meant in _OPERANDS:
            self.error(f"there is no option {option}; {meant} stands by itself: {self._form()}")
        meant = meant or nearest(option, self._option_string_actions)
        hint = f", did you mean {meant}?" if meant else ""
        self.error(f"there is no option {option}{hint}")

    def _elsewhere(self, word: str) -> str | None:
        """What another program's word stands for here, where this parser has it."""
        meant = _ELSEWHERE.get(word.replace("_", "-"), word.replace("_", "-"))
        if meant == "MODEL" and (self._commands() is not None or self._has("source")):
            return meant
        if meant in _OPERANDS:
            return meant if self._has(_OPERANDS[meant]) else None
        return meant if meant in self._option_string_actions else None

    def _form(self) -> str:
        operands = [each for each in self._actions if not each.option_strings]
        return " ".join([self.prog, *(str(each.metavar) for each in operands)])

    def _has(self, operand: str) -> bool:
        return any(each.dest == operand and not each.option_strings for each in self._actions)

    def _knows(self, word: str) -> bool:
        """Whether a word is an option of this parser, with or without a value behind it."""
        known = self._option_string_actions
        if word in known or word.partition("=")[0] in known:
            return True
        return not word.startswith("--") and word[:2] in known

    def _commands(self) -> argparse._SubParsersAction[Any] | None:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return action
        return None


def _named_elsewhere(word: str, known: Sequence[str]) -> str | None:
    """The command that another program calls by a word, where it is one of those known."""
    meant = _COMMANDS.get(word)
    return meant if meant in known else None


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves room for the longest command's name and keeps the lines of the examples."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def _own_words(words: Sequence[str] | None) -> list[str]:
    import sys

    return list(sys.argv[1:] if words is None else words)


def _long_name(action: argparse.Action) -> str:
    return max(action.option_strings, key=len)
