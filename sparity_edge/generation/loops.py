"""LoopDetector: notices a text that repeats itself word for word without end.

Small models fall into such loops, and then no token of theirs ends the text. Knows token ids only,
neither what they mean nor what is done about a loop.
"""

from __future__ import annotations

import numpy as np

LONGEST = 1024  # tokens of a passage; longer ones are not looked for
# A passage counts as a loop when it stands there three times, and when what is repeated has 64
# tokens: refrains, tables and rows of dashes are shorter.
TIMES = 3
REPEATED = 64


class LoopDetector:
    """Looks at the tokens of one sequence as they come."""

    def __init__(self) -> None:
        self._latest = np.full(LONGEST, -1, dtype=np.int64)  # the latest token first
        # For each period 1, 2, ...: how many of the latest tokens stand there one period before.
        self._repeated = np.zeros(LONGEST, dtype=np.int64)
        periods = np.arange(1, LONGEST + 1)
        self._needed = np.maximum((TIMES - 1) * periods, REPEATED)

    def push(self, token: int) -> bool:
        """Take the next token; returns whether the text is in a loop by now.

        Args:
            token: its id, 0 or more.
        """
        self._repeated += 1
        self._repeated[self._latest != token] = 0
        self._latest[1:] = self._latest[:-1]
        self._latest[0] = token
        return bool((self._repeated >= self._needed).any())
