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

    def seconds(self, plan: str | None, generator: Generator) -> float:
        """Roughly how long it takes to make a plan; 0 where it is made already.

        Args:
            plan: its name; None: any will do, and the default plan is made where there is none.
            generator: of the session.

        Raises:
            OptionError: it cannot be made; the sentence says why.
        """

    def load(self, plan: str | None, share: float, generator: Generator, force: bool) -> Generator:
        """A generator like the present one that follows a plan where that makes it faster.

        Args:
            plan: its name, made where it is not there; None: the one that is fastest.
            share: of the weights.
            generator: of the session.
            force: whether the plan is followed whatever it gains and costs.

        Raises:
            TooLossyError: it changes the text too much, and `force` is not given.
            SparityError: the plan cannot be made or does not reach that far.
        """
