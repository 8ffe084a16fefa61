"""What the header of a GGUF file says: metadata by key, and where each tensor lies.

The getters check the type of a value when it is asked for, so that metadata which nobody needs
never refuses a file. Knows nothing of the bytes of a file, of tensor names or of an architecture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from sparity_edge.errors import SourceError

MAX_SHOWN = 60  # characters of a name or value that a message repeats


@dataclass(frozen=True)
class Unusable:
    """A value that cannot be read; who needs it says so, and most are needed by nobody."""

    reason: str


Value = bool | int | float | str | list[str] | npt.NDArray[np.generic] | Unusable
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: shape as NumPy has it (rows first), number type and place in the file."""

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int  # from the beginning of the file
    row_bytes: int
    part: int = 0  # of a split model: in which file it lies


@dataclass(frozen=True)
class GgufHeader:
    """Metadata and tensors of a GGUF file; the getters check types and name the key."""

    label: str
    metadata: dict[str, Value]
    tensors: dict[str, TensorInfo]

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number; without a default the key must be there."""
        value = self._get(key, int, "a whole number", default)
        if isinstance(value, bool):
            raise self._wrong(key, "a whole number", value)
        return value

    def whole(self, key: str) -> int | None:
        """The number of a key that is there; None where its value is no whole number."""
        value = self.metadata[key]
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def every_layer(self, key: str, default: int | None = None) -> int:
        """A whole number that may also be given as a list of equal ones, one a layer."""
        value = self.metadata.get(key)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or not value.size:
            return self.integer(key, default)
        if (value != value[0]).any():
            raise SourceError(
                f"{self.label}: {key} differs between layers (from {value.min()} to "
                f"{value.max()}), which is not supported; take another model."
            )
        return int(value[0])

    def real(self, key: str, default: float | None = None) -> float:
        """A finite number, in the shortest decimals that mean the same float32."""
        value = self._get(key, (int, float), "a number", default)
        if isinstance(value, bool) or not math.isfinite(value):
            raise self._wrong(key, "a finite number", value)
        with np.errstate(over="ignore"):
            rounded = float(str(np.float32(value)))
        return rounded if math.isfinite(rounded) else float(value)

    def boolean(self, key: str, default: bool) -> bool:
        """true or false."""
        return self._get(key, bool, "true or false", default)

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a default the key must be there."""
        return self._get(key, str, "a text", default)

    def texts(self, key: str) -> list[str]:
        """A list of texts; the key must be there."""
        return self._get(key, list, "a list of texts", None)

    def numbers(self, key: str) -> npt.NDArray[np.generic]:
        """A list of numbers; the key must be there."""
        return self._get(key, np.ndarray, "a list of numbers", None)

    def _get(
        self, key: str, kind: type[Kind] | tuple[type, ...], wanted: str, default: Kind | None
    ) -> Kind:
        value = self.metadata.get(key, default)
        if value is None:
            raise SourceError(f"{self.label}: the metadata lacks {key}; fetch another file.")
        if isinstance(value, Unusable):
            raise SourceError(f"{self.label}: {key} {value.reason}; the file is damaged.")
        if not isinstance(value, kind):
            raise self._wrong(key, wanted, value)
        return value  # type: ignore[return-value]

    def _wrong(self, key: str, wanted: str, value: object) -> SourceError:
        return SourceError(
            f"{self.label}: {key}={brief(value)} is not {wanted}; the file is damaged."
        )


def brief(value: object) -> str:
    """A value of the metadata as messages show it."""
    if isinstance(value, str):
        return repr(value[:MAX_SHOWN])
    shown = repr(value)
    return shown if len(shown) < MAX_SHOWN else f"a {type(value).__name__}"
