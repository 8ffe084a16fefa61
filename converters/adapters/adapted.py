"""AdaptedSource: a model as a source, with LoRA adapters put to its weights.

    weights in floats       W' = W + sum of (alpha / r) B A          nothing else changes
    quantised weights       W as it is, and beside it A and (alpha / r) B, those of several
                            adapters stacked: x W^T + (x A^T) B^T is computed at run time

So integers of a source keep their values. The two matrices are bf16 where that holds their very
numbers, else f32. Knows nothing of the files of adapters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np

from converters.adapters.peft import LowRank
from converters.numbers.quantize import Quantized
from converters.sources.source import Array, Source
from sparity_edge.arrays import Floats
from sparity_edge.config.lora import LORA_A, LORA_B, LORA_KEY
from sparity_edge.errors import OptionError

FLOATS = ("f32", "bf16")  # what packed folders call numbers that are no integers


class AdaptedSource(Source):
    """A source with low-rank products added to its linears.

    Args:
        source: what they are added to; it is closed with this one.
        adapters: what each adapter adds, by the names of weights.
        identity: of the adapters and their scales.
        label: what the user named.
        merged: add them to quantised weights as well, which then come in floats.

    Raises:
        OptionError: the source is rotated, or has adapters beside its weights already.
    """

    def __init__(
        self,
        source: Source,
        adapters: Sequence[Mapping[str, LowRank]],
        identity: str,
        *,
        label: str,
        merged: bool = False,
    ) -> None:
        config = source.config
        if config.rotation is not None or config.lora is not None:
            what = "rotated" if config.rotation is not None else "given a LoRA adapter"
            raise OptionError(f"{source.label} is {what} already; start from what it was made of.")
        self._source, self._adapters, self._identity = source, adapters, identity
        self.label, self.files, self.notes = label, source.files, source.notes
        self.tokenizer_files = source.tokenizer_files
        self.generation_config = source.generation_config
        names = dict.fromkeys(name for each in adapters for name in each)
        self._added = {
            name: _stacked([each[name] for each in adapters if name in each]) for name in names
        }
        beside = [name for name in names if not merged and self._keeps(name)]
        self._beside: dict[str, Floats] = {}
        for name in beside:
            self._beside[_half(name, LORA_A)] = self._added[name].a
            self._beside[_half(name, LORA_B)] = self._added[name].b
        self.config_json = source.config_json
        if beside:
            ranks = {_linear(name): len(self._added[name].a) for name in beside}
            key = {"adapters": hashlib.sha256(identity.encode()).hexdigest(), "ranks": ranks}
            self.config_json = {**source.config_json, LORA_KEY: key}

    def merged(self) -> AdaptedSource:
        """The same model with all adapters added to its weights, which then are floats."""
        return AdaptedSource(
            self._source, self._adapters, self._identity, label=self.label, merged=True
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """As `Source.shapes`."""
        beside = {name: matrix.shape for name, matrix in self._beside.items()}
        return {**self._source.shapes(), **beside}

    def check_dtype(self, name: str) -> None:
        """As `Source.check_dtype`."""
        if name not in self._beside:
            self._source.check_dtype(name)

    def native(self, name: str) -> tuple[str, int, bool] | None:
        """As `Source.native`; for the floats beside weights too, which are kept as they are."""
        if name in self._beside:
            return _dtype(self._beside[name]), 0, False
        native = self._source.native(name)
        return None if name in self._added and not self._is_beside(name) else native

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array | Quantized:
        """As `Source.read`."""
        if name in self._beside:
            return self._beside[name][start:stop].copy()
        content = self._source.read(name, start, stop)
        if name not in self._added or self._is_beside(name):
            return content
        floats = content.dequantize() if isinstance(content, Quantized) else content
        added = self._added[name]
        result: Floats = np.asarray(floats, dtype=np.float32) + added.b[start:stop] @ added.a
        return result

    def fingerprint(self) -> str:
        """SHA-256, in hex, of the source's fingerprint and the adapters."""
        parts = (self._source.fingerprint(), self._identity)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def close(self) -> None:
        """Close what the adapters are put to."""
        self._source.close()

    def _keeps(self, name: str) -> bool:
        """Whether the numbers of a matrix are integers, which are kept."""
        native = self._source.native(name)
        return native is not None and native[0] not in FLOATS

    def _is_beside(self, name: str) -> bool:
        return _half(name, LORA_A) in self._beside


def _stacked(parts: Sequence[LowRank]) -> LowRank:
    """Several products as one of a higher rank."""
    a, b = [each.a for each in parts], [each.b for each in parts]
    return LowRank(np.concatenate(a), np.concatenate(b, axis=1))


def _half(name: str, half: str) -> str:
    """The tensor beside a weight that holds one of the two matrices."""
    return f"{name.removesuffix('weight')}{half}.weight"


def _linear(name: str) -> str:
    """ "3.self_attn.q_proj" of "model.layers.3.self_attn.q_proj.weight"."""
    return name.removeprefix("model.layers.").removesuffix(".weight")


def _dtype(matrix: Floats) -> str:
    """The smaller of the formats that hold the very numbers of a matrix."""
    rounded = matrix.astype(ml_dtypes.bfloat16).astype(np.float32)
    return "bf16" if np.array_equal(rounded, matrix) else "f32"
