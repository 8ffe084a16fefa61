"""Active lists: the channels that count for this token, ascending, as kernels hand them on.

In memory a list is an int64 count, then from byte 64 on int32 channel numbers; sixteen more fit
after the last, because whole vectors are written. Imports no Numba: the reference uses it too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import aligned_empty, round_up

ActiveList = npt.NDArray[np.int32]

FIRST = 64  # the byte at which channel numbers begin
_SPARE = 16


def empty_list(size: int) -> ActiveList:
    """A list that has room for `size` channels and holds none."""
    active = aligned_empty(round_up(FIRST + 4 * (size + _SPARE), 64)).view(np.int32)
    active[:] = 0
    return active


def empty_lists(count: int, size: int) -> ActiveList:
    """So many lists, one a row, each with room for `size` channels."""
    words = round_up(FIRST + 4 * (size + _SPARE), 64) // 4
    lists = aligned_empty(4 * words * count).view(np.int32).reshape(count, words)
    lists[:] = 0
    return lists


def full_list(size: int) -> ActiveList:
    """A list of all channels below `size`."""
    active = empty_list(size)
    set_channels(active, np.arange(size))
    return active


def channels(active: ActiveList) -> npt.NDArray[np.int32]:
    """A view of the channels on the list, (count,)."""
    return active[FIRST // 4 :][: int(active[:2].view(np.int64)[0])]


def set_channels(active: ActiveList, wanted: npt.ArrayLike) -> None:
    """Put these channels, which must ascend, on the list."""
    numbers = np.asarray(wanted, dtype=np.int32)
    active[:2].view(np.int64)[0] = len(numbers)
    active[FIRST // 4 :][: len(numbers)] = numbers
