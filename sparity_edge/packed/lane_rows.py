"""Rows of a screen: where each byte stands of a four-bit matrix whose rows lie side by side.

```
block of 16 rows, groups = inputs / 64
+-----------------------------+-----------------------------+------+
| groups times 8 vectors      | groups times 16 scales, f16 | fill |
| of 64 bytes                 |                             | -64  |
+-----------------------------+-----------------------------+------+
```

Byte 4 i + j of vector v of a group belongs to row i: input 8 v + j in the low nibble, 8 v + 4 + j
in the high one. w = scale * (q - 8). Rows missing from the last block are bytes of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparity_edge.arrays import ALIGNMENT, Bytes, round_up

TOGETHER = 16  # rows of a block
GROUP = 64  # inputs that share a scale
ZERO = 8  # the number that stands for 0


@dataclass(frozen=True)
class LaneLayout:
    """The shape of a matrix in such rows, (outputs, inputs); inputs are a multiple of 64."""

    outputs: int
    inputs: int

    def __post_init__(self) -> None:
        assert self.outputs > 0
        assert self.inputs > 0
        assert self.inputs % GROUP == 0

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return self.inputs // GROUP

    @property
    def blocks(self) -> int:
        """Blocks of sixteen rows, the last one filled up."""
        return -(-self.outputs // TOGETHER)

    @property
    def number_bytes(self) -> int:
        """Bytes of the numbers of a block, in front of its scales."""
        return self.inputs * TOGETHER // 2

    @property
    def block_bytes(self) -> int:
        """Distance from one block to the next."""
        return round_up(self.number_bytes + 2 * TOGETHER * self.groups, ALIGNMENT)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole matrix."""
        return self.blocks * self.block_bytes


@dataclass(frozen=True)
class LaneRows:
    """One such matrix in memory."""

    layout: LaneLayout
    data: Bytes  # (layout.nbytes,), starts at a 64-byte boundary
