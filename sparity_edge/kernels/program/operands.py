"""Operands: which memory each operation of a recording may touch, for kernels that are checked.

Filled while operations are recorded and used under SPARITY_EDGE_CHECKS alone (`kernels.checks`).
Words of an argument block are looked up by their value, so that it makes no difference whether an
array was named or the address of one. Knows nothing of what a kernel does with its operands.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from sparity_edge.arrays import ROW_MULTIPLE, TAIL, Integers, Numbers, round_up
from sparity_edge.kernels.checks import (
    ADDRESS,
    FAULT,
    FIRST_REGION,
    INDICES,
    LIMIT,
    REGION_WORDS,
    REGIONS,
    VALUE,
    BoundsError,
)
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.sparse.ffn import Bundle

Region = tuple[int, int, int]  # the first address, the end for writing, and for reading
Operation = tuple[Kernel, Mapping[str, int]]  # and its argument block, by name


class Operands:
    """The memory behind the words of argument blocks."""

    def __init__(self) -> None:
        self._regions: dict[int, Region] = {}  # by their first address
        self._behind: dict[int, list[int]] = {}  # addresses that stand in the memory at an address
        self._joined: list[Region] = []  # regions that overlap as one, ascending
        self._named: list[tuple[str, dict[Region, str]]] = []  # kernel and regions of operations
        self._tables: Integers = np.zeros((0, FIRST_REGION), dtype=np.int64)

    def note(self, argument: Numbers | Matrix | Bundle) -> None:
        """Remember the memory of an argument."""
        if isinstance(argument, np.ndarray):
            self._add(region_of(argument))
            return
        for first, end in argument.memory:
            self._add((first, first, end))
        self.follow(argument.address, [first for first, _ in argument.memory])

    def follow(self, address: int, to: Iterable[int]) -> None:
        """Remember that kernels find these addresses in the memory at `address`."""
        self._behind.setdefault(address, []).extend(to)

    def tables(self, operations: Iterable[Operation]) -> Integers:
        """The table of each operation, as `kernels.checks` lays it out, a row each."""
        self._joined = list(_joined(self._regions.values()))
        known: dict[tuple[str, ...], dict[Region, str]] = {}
        self._named = []
        for kernel, arguments in operations:
            key = (kernel.name, *map(str, arguments.values()))
            if key not in known:
                known[key] = self._regions_of(arguments)
            self._named.append((kernel.name, known[key]))
        most = max((len(regions) for regions in known.values()), default=0)
        shape = (len(self._named), FIRST_REGION + REGION_WORDS * most)
        self._tables = np.zeros(shape, dtype=np.int64)
        for table, (_, regions) in zip(self._tables, self._named, strict=True):
            words = np.array(list(regions), dtype=np.int64).ravel()
            table[REGIONS] = len(regions)
            table[FIRST_REGION:][: len(words)] = words
        return self._tables

    def raise_fault(self) -> None:
        """Raise what checked kernels have noted in the tables.

        Raises:
            BoundsError: an operation was about to touch memory that is not its own.
        """
        wrong = np.flatnonzero(self._tables[:, FAULT])
        if not wrong.size:
            return
        kind, value, limit = self._tables[wrong[0], [FAULT, VALUE, LIMIT]].tolist()
        self._tables[:, FAULT] = 0
        kernel, regions = self._named[wrong[0]]
        if kind == ADDRESS:
            told = f"{limit} bytes that are none of its operands', {_nearest(regions, value)}"
        else:
            told = f"{INDICES[kind]} {value}, where 0 to {limit - 1} are allowed"
        raise BoundsError(f"Operation {wrong[0]}, {kernel}, asked for {told}.")

    def _add(self, region: Region) -> None:
        """Remember a region; of two that begin at one address the longer."""
        first, *ends = region
        known = self._regions.get(first, region)
        self._regions[first] = (first, max(ends[0], known[1]), max(ends[1], known[2]))

    def _regions_of(self, arguments: Mapping[str, int]) -> dict[Region, str]:
        """What an operation may touch, each region with the name of the word that leads there."""
        regions: dict[Region, str] = {}
        for name, word in arguments.items():
            wanted, seen = [word], set()
            while wanted:
                address = wanted.pop()
                region = self._region_at(address)
                if address in seen or region is None:
                    continue
                seen.add(address)
                regions.setdefault(region, name)
                wanted += self._behind.get(address, ())
        return regions

    def _region_at(self, address: int) -> Region | None:
        if address in self._regions:
            return self._regions[address]
        index = bisect_right(self._joined, address, key=lambda region: region[0]) - 1
        if index < 0 or address >= self._joined[index][2]:
            return None
        return self._joined[index]


def region_of(array: Numbers) -> Region:
    """The memory of an array: a row of float32 counts with the zeros that follow it (`rows`).

    Behind it as much of its allocation may be read as kernels want that read whole vectors.
    """
    first = end = int(array.ctypes.data)
    if not array.size:
        return first, end, end
    end += sum((n - 1) * step for n, step in zip(array.shape, array.strides)) + array.itemsize
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    most = max(end, int(whole.ctypes.data) + whole.nbytes)
    if array.dtype == np.float32 and array.strides[-1:] == (array.itemsize,):
        length = array.shape[-1]
        end += array.itemsize * (round_up(length, ROW_MULTIPLE) - length)
    end = min(end, most)
    return first, end, min(end + TAIL, most)


def _joined(regions: Iterable[Region]) -> Iterator[Region]:
    """Regions in ascending order, those that overlap as one."""
    first = write_end = read_end = 0
    for start, *ends in sorted(regions):
        if start >= write_end:
            yield first, write_end, read_end
            first = start
        write_end, read_end = max(write_end, ends[0]), max(read_end, ends[1])
    yield first, write_end, read_end


def _nearest(regions: Mapping[Region, str], address: int) -> str:
    """Where an address lies, told from the operand that is nearest."""
    if not regions:
        return "of which there are none"
    (first, _, end), name = min(
        regions.items(), key=lambda item: max(item[0][0] - address, address - item[0][2])
    )
    if address < first:
        return f"{first - address} bytes before {name}"
    return f"{address - first} bytes into {name}, which has {end - first}"
