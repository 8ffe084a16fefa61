"""Offer: the tools that a request lets its model call, in any protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sparity_edge.errors import OptionError

Tool = Mapping[str, Any]
Choice = Literal["none", "auto", "required"]


@dataclass(frozen=True)
class Offer:
    """Tools that the model may call.

    Args:
        tools: as OpenAI has them, {"type": "function", "function": {...}}.
        choice: whether they may be called, or one has to be.
        name: of the one that has to be called; None: any.
        parallel: whether an answer may hold several calls.
        strict: whether arguments must keep to their schema even where no call has to be made.
    """

    tools: Sequence[Tool] = ()
    choice: Choice = "auto"
    name: str | None = None
    parallel: bool = True
    strict: bool = False

    @property
    def open(self) -> bool:
        """Whether there is anything to call."""
        return bool(self.tools) and self.choice != "none"

    @property
    def calls(self) -> str:
        """The rule of a grammar for the calls that one answer may hold."""
        return "calls" if self.name is None and self.parallel else "call"

    @property
    def callable(self) -> Sequence[Tool]:
        """The tools of which one may be called, or has to be."""
        named = [each for each in self.tools if each["function"]["name"] == self.name]
        return self.tools if self.name is None else named

    def check(self) -> None:
        """Refuse tools of one name, and a choice of what is not there.

        Raises:
            OptionError: it is such an offer.
        """
        names = [each["function"]["name"] for each in self.tools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise OptionError(f"tools has two functions of the name {twice!r}; rename one of them.")
        if self.choice == "required" and not names:
            raise OptionError("tool_choice asks for a call, and there are no tools; add some.")
        if self.name is not None and self.name not in names:
            raise OptionError(f"tool_choice names {self.name!r}, which is not among the tools.")
