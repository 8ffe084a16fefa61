"""PlanMaker: what a chat asks of whoever makes sparsity plans of its model.

Knows neither how a plan is made nor what a conversation is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator


class PlanMaker(Protocol):
    """Makes sparsity plans of the session's model."""

    def names(self) -> Sequence[str]:
        """The plans to choose from, be they made or not; without those that take long."""

    def seconds(self, plan: str, generator: Generator) -> float:
        """Roughly how long it takes to make a plan; 0 where it is made already.

        Raises:
            OptionError: it cannot be made; the sentence says why.
        """

    def load(self, plan: str, share: float, generator: Generator) -> Generator:
        """A generator like the present one that follows a plan, made where it is not there.

        Raises:
            SparityError: the plan cannot be made or does not reach that far.
        """
