"""A pace for tests of what guesses change: all of them are read, whatever the prices say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sparity_edge.generation.speculation.pace import Pace


class EagerPace(Pace):
    """Reads all guesses, whatever they cost."""

    def of_batch(self, _sequences: int) -> Pace:
        return self

    def size(
        self, chances: Sequence[float], _depth: int, most: int, _recorded: Callable[[int], bool]
    ) -> int:
        return min(most, len(chances) + 1)

    def gain(self, expected: float, size: int, _depth: int) -> float:
        return 1.0 + expected + size

    def choose(self, found: Sequence[tuple[float, Any]], _recorded: Any) -> Any:
        return max(found)[1]

    def passed(self, *_: Any) -> None:
        pass
