"""Places: where a recording names rows of KV caches, so that those of others can take their place.

Recording a batch takes Python longer than a token takes the kernels, and sequences join and leave
all the time: what is different then are the addresses of rows, and how far apart heads are. Knows
nothing of what a kernel does with either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparity_edge.arrays import Integers, Numbers
from sparity_edge.kernels.program import loops
from sparity_edge.kernels.program.recorder import Recorder

STRIDE = "head_stride"  # the end of the word's name, which may stand in an inner block


class Places:
    """The words of a recording that say where rows are.

    Args:
        recorder: of a recording that is over.
        rows: (heads, capacity) rows that it names; several of them may be one.
    """

    def __init__(self, recorder: Recorder, rows: Sequence[Numbers]) -> None:
        self._table = recorder.assembled()
        addresses = _addresses(rows)
        order = np.argsort(addresses, kind="stable")
        words = self._table[:, loops.FIRST_ARGUMENT :]
        found = np.searchsorted(addresses[order], words).clip(max=len(rows) - 1)
        self._records, columns = np.nonzero(addresses[order][found] == words)
        self._which = order[found[self._records, columns]]
        self._columns = columns + loops.FIRST_ARGUMENT
        names = [recorder.records[index].kernel.words.names for index in self._records]
        self._strides = np.array([_stride_of(each) for each in names], np.intp)
        recorder.finish(rows)

    def move(self, rows: Sequence[Numbers]) -> None:
        """Name other rows from now on.

        Args:
            rows: as many as before, of the same format; nobody keeps them but the caller.
        """
        self._table[self._records, self._columns] = _addresses(rows)[self._which]
        strides = np.array([each.strides[0] for each in rows], np.int64)
        self._table[self._records, self._strides] = strides[self._which]


def _addresses(rows: Sequence[Numbers]) -> Integers:
    return np.array([each.ctypes.data for each in rows], np.int64)


def _stride_of(names: Sequence[str]) -> int:
    """The column of the word that says how far apart heads are."""
    return loops.FIRST_ARGUMENT + next(i for i, name in enumerate(names) if name.endswith(STRIDE))
