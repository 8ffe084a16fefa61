"""The switch SPARITY_EDGE_CHECKS: with 1, kernels stay inside the memory of their operation.

Every load and store of a kernel is then compared with the arrays, matrices and scratch memory that
its operation was recorded with, and every index that it reads (token ids, positions, active lists)
with its bound. The first that lies outside is noted, replaced by a harmless one and raised as
`BoundsError` at the end of the run. Without the switch the machine code has no trace of it.

Here is what compiled code (`simd.bounds`), recorder and team agree on; it is read once, on import.
"""

from __future__ import annotations

import os

VARIABLE = "SPARITY_EDGE_CHECKS"
CHECKED = os.environ.get(VARIABLE, "0") not in ("", "0")

# Words of the table of an operation: what was wrong, with which value and limit, the number of
# regions, and from FIRST_REGION on three words for each.
FAULT, VALUE, LIMIT, REGIONS, FIRST_REGION = range(5)
# Of a region: its first address, the end of what may be written, and of what may be read.
FIRST, WRITE_END, READ_END, REGION_WORDS = range(4)
# Faults: an address outside of all regions (LIMIT is the bytes asked for), or an index.
ADDRESS, TOKEN, POSITION, LENGTH, CHANNEL, STEP = range(1, 7)
INDICES = {
    TOKEN: "token id",
    POSITION: "position",
    LENGTH: "length of an active list",
    CHANNEL: "channel of an active list",
    STEP: "channels left out between two of an active list",
}


class BoundsError(RuntimeError):
    """A kernel was about to touch memory that is not its operation's: a fault of this program."""
