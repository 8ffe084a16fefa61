"""The tensors of one quantised linear, checked as input of strangers, and a little memory of them.

A format asks for its parts by name, with the types and the shape that they must have. Formats that
store outputs side by side are read whole and transposed once: `Held` keeps the transpose while the
rows of a matrix are asked for one after another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.sources.quantised.stored import Stored
from sparity_edge.errors import SourceError

Array = npt.NDArray[Any]

STRIP = 32  # rows that are transposed at a time: a cache line or two of each column
KEPT = 6  # parts of as many as two matrices, as threads at the end of one begin the next


class Held:
    """The last few arrays that were made, by any key."""

    def __init__(self) -> None:
        self._arrays: OrderedDict[Any, Array] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Array]) -> Array:
        """What `make` returned for this key, made anew where it was dropped.

        Args:
            key: anything that can be hashed.
            make: called where the array is not held.
        """
        if key not in self._arrays:
            self._arrays[key] = make()
            while len(self._arrays) > KEPT:
                self._arrays.popitem(last=False)
        self._arrays.move_to_end(key)
        return self._arrays[key]


class Parts:
    """What is stored of one module, such as `model.layers.0.mlp.up_proj`."""

    def __init__(
        self, module: str, stored: Mapping[str, Stored], held: Held, label: str, method: str
    ) -> None:
        """Of a module, its tensors by the last part of their names; `held` is shared by all."""
        self.module, self.stored, self.held = module, stored, held
        self._label, self._method = label, method

    def take(self, part: str, dtypes: Iterable[str], shape: tuple[int, ...] | int) -> Stored:
        """One part.

        Args:
            part: the last of its name.
            dtypes: any that it may have.
            shape: that it must have, or how many sides.

        Raises:
            SourceError: it is missing, or not of that kind.
        """
        tensor = self.stored.get(part)
        if tensor is None:
            raise self.refused(f"{part} is missing")
        if tensor.dtype not in dtypes:
            raise self.refused(f"{part} has dtype {tensor.dtype} in place of {' or '.join(dtypes)}")
        sides = len(tensor.shape)
        if sides != shape if isinstance(shape, int) else tensor.shape != shape:
            wanted = f"{shape} sides" if isinstance(shape, int) else f"{shape}"
            raise self.refused(f"{part} has shape {tensor.shape} in place of {wanted}")
        return tensor

    def optional(
        self, part: str, dtypes: Iterable[str], shape: tuple[int, ...] | int
    ) -> Stored | None:
        """One part, None where it is not stored.

        Args:
            part: the last of its name.
            dtypes: any that it may have.
            shape: that it must have, or how many sides.

        Raises:
            SourceError: it is stored, and not of that kind.
        """
        return self.take(part, dtypes, shape) if part in self.stored else None

    def kept(self, part: str, make: Callable[[], Array]) -> Array:
        """What `make` returns, kept for the rows that are asked for next.

        Args:
            part: by which it is found again.
            make: called where it is not kept.
        """
        return self.held.get((self.module, part), make)

    def refused(self, what: str) -> SourceError:
        """The error for a module that its format's own program could not read either, not raised.

        Args:
            what: is wrong with it.
        """
        return SourceError(
            f"{self._label}: {self.module}: {what}, which does not fit {self._method}; the "
            "checkpoint is damaged or of another kind, fetch it again."
        )

    def check_group(self, inputs: int, groups: int, group: int | None) -> int:
        """Inputs that share a scale.

        Args:
            inputs, groups: how many there are.
            group: what the configuration says; -1 and 0 mean all inputs, None nothing.

        Raises:
            SourceError: they do not fit each other.
        """
        if inputs < 1 or groups < 1:
            raise self.refused("a matrix without numbers or scales")
        if group is None:
            if inputs % groups:
                raise self.refused(f"{groups} groups for {inputs} inputs")
            group = inputs // groups
        if group < 1:
            group = inputs
        if -(-inputs // group) != groups:
            raise self.refused(f"{groups} groups for {inputs} inputs and group_size={group}")
        return group


def transposed(array: Array) -> Array:
    """The transpose, in rows that follow each other; made in strips, which takes half the time.

    Args:
        array: (rows, columns).
    """
    out = np.empty(array.shape[::-1], array.dtype)
    for start in range(0, array.shape[0], STRIP):
        out[:, start : start + STRIP] = array[start : start + STRIP].T
    return out


def in_groups(inputs: int, group: int) -> Array:
    """The group of each input, where they follow each other.

    Args:
        inputs: how many there are.
        group: inputs of a group; the last one may have fewer.
    """
    return np.arange(inputs, dtype=np.intp) // group
