"""Cost curves: what a product with some of its rows active takes, over the dense product.

Measured by bench/costs.py for each kernel, by the bytes of a row and the density. What it has
measured on this machine is used; until it has run here, a file of the same class of CPU that comes
with the package. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparity_edge.kernels.simd.cpu import word_dot
from sparity_edge.system.folders import curves_root

Array = npt.NDArray[Any]
KERNELS = ("spvmm", "ffn")
MEASURED, OTHER = ("avx512vnni", "avx2"), "other"  # classes, by how they multiply integers
MARGIN = 1.15  # on what skipping takes where a CPU is of no class that was measured


@dataclass(frozen=True)
class Curves:
    """The curves of one machine, or of a class of CPUs."""

    name: str
    densities: Array  # (densities,) ascending
    rows: Mapping[str, Array]  # kernel -> (sizes,) bytes of a row, ascending
    ratios: Mapping[str, Array]  # kernel -> (sizes, densities), time over that of the dense product
    # What choosing the active channels of one vector takes, in bytes that a dense product reads in
    # that time: of the vector, and of each of its channels.
    selection: tuple[float, float]

    @classmethod
    def parse(cls, content: Any, name: str) -> Curves:
        """Curves from the content of a file.

        Raises:
            ValueError, KeyError, TypeError: that is none of ours.
        """
        densities = np.array(content["densities"], dtype=np.float64)
        rows, ratios = {}, {}
        for kernel in KERNELS:
            sizes = sorted((int(size), each) for size, each in content[kernel].items())
            rows[kernel] = np.array([size for size, _ in sizes], dtype=np.float64)
            ratios[kernel] = np.array([each for _, each in sizes], dtype=np.float64)
            if ratios[kernel].shape != (len(sizes), len(densities)) or not len(sizes):
                raise ValueError("a curve does not have a number for each density")
            if not (ratios[kernel] > 0).all() or rows[kernel][0] <= 0:
                raise ValueError("a time is not above 0")
        if not (np.diff(densities) > 0).all() or densities[-1] != 1:
            raise ValueError("densities do not rise to 1")
        first, each = map(float, content["selection"])
        return cls(name, densities, rows, ratios, (first, each))

    def ratio(self, kernel: str, row_bytes: int, densities: Array) -> Array:
        """Time of a product with shares of its rows active over that of the dense product.

        Straight lines between what was measured, over the logarithm of a row's bytes.

        Args:
            kernel: one of `KERNELS`.
            row_bytes: of a row.
            densities: shares of rows that are active.
        """
        sizes = np.log(self.rows[kernel])
        curve = [np.interp(np.log(row_bytes), sizes, at) for at in self.ratios[kernel].T]
        result: Array = np.interp(densities, self.densities, curve)
        return result

    def choosing(self, channels: int) -> float:
        """What finding the active ones of so many channels takes, in bytes of a dense product."""
        return self.selection[0] + self.selection[1] * channels


def cpu_class() -> str:
    """The class that the CPU belongs to which kernels are compiled for."""
    return word_dot() if word_dot() in MEASURED else OTHER


def curves_here() -> Curves:
    """The curves of this machine, else those of its class that come with the package."""
    name = cpu_class()
    try:
        return _read(curves_root() / f"{name}.json", f"this machine ({name})")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return shipped(name)


def shipped(name: str) -> Curves:
    """The curves of a class of CPUs.

    Args:
        name: one of `MEASURED`; or `OTHER`, for which the dearest of these is taken.
    """
    if name == OTHER:
        return dearest([shipped(each) for each in MEASURED], OTHER)
    return _read(Path(str(files("converters.allocate") / "cost_curves" / f"{name}.json")), name)


def dearest(known: Sequence[Curves], name: str) -> Curves:
    """Curves by which nothing seems to pay that may not pay on a CPU that nobody has measured.

    What skips rows takes as long as on the slowest of the known ones and `MARGIN` times that, what
    reads all of them as on the quickest.
    """
    densities = known[0].densities
    rows, ratios = {}, {}
    for kernel in KERNELS:
        rows[kernel] = np.unique(np.concatenate([each.rows[kernel] for each in known]))
        found = np.array(
            [[each.ratio(kernel, size, densities) for size in rows[kernel]] for each in known]
        )
        ratios[kernel] = MARGIN * found.max(axis=0)
        ratios[kernel][:, -1] = found[..., -1].min(axis=0)
    first, each = np.max([curves.selection for curves in known], axis=0)
    return Curves(name, densities, rows, ratios, (MARGIN * float(first), MARGIN * float(each)))


def _read(path: Path, name: str) -> Curves:
    return Curves.parse(json.loads(path.read_bytes()), name)
