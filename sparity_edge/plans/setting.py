"""Setting: a position of the sparsity dial as data; a loaded model applies it."""

from __future__ import annotations

from dataclasses import dataclass

from sparity_edge.choices import DEFAULT_PLAN
from sparity_edge.errors import OptionError


@dataclass(frozen=True)
class Setting:
    """A position of the dial: a plan at a sparsity or at its own level; neither is dense."""

    plan: str | None = None  # None: the default plan
    sparsity: float | None = None
    level: float | None = None

    @classmethod
    def parse(cls, text: str) -> Setting:
        """`dense`, `PLAN:SPARSITY` or `PLAN@LEVEL`: `auto:0.25`, `chess@0.5`.

        Raises:
            OptionError: it is none of these.
        """
        if text == "dense":
            return cls()
        for sign, name in ((":", "sparsity"), ("@", "level")):
            plan, found, value = text.rpartition(sign)
            if found and plan:
                try:
                    return cls(plan, **{name: float(value)})
                except ValueError:
                    break
        raise OptionError(f"{text!r} is none of dense, PLAN:SPARSITY (auto:0.25), PLAN@LEVEL.")

    @property
    def dense(self) -> bool:
        """Whether nothing is skipped."""
        return not self.sparsity and not self.level

    def __str__(self) -> str:
        if self.dense:
            return "dense"
        plan = self.plan or DEFAULT_PLAN
        return f"{plan}@{self.level:g}" if self.level is not None else f"{plan}:{self.sparsity:g}"


DENSE = Setting()
