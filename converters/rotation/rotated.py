"""RotatedSource: a model as a source, its weights folded so that the residual stream is rotated.

With x' = x Q_l before layer l and RMSNorm without weights, n(x Q) = n(x) Q, so that

    embedding  E' = E Q_0                    q, k, v, gate, up  W' = W diag(norm) Q_l
    o, down    W' = Q_l^T W, b' = Q_l^T b    head               H' = H diag(norm) Q_last

and all norms are ones. Where the bases of two layers differ, the residual adapter
A = Q_l^T Q_(l-1) stands before layer l. What the model computes is the same but for rounding.
Integers of the source become floats. Knows nothing of where bases come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from converters.numbers.quantize import Quantized
from converters.sources.source import Array, Source
from sparity_edge.arrays import Floats
from sparity_edge.config.model_config import ADAPTER
from sparity_edge.config.norms import BEFORE
from sparity_edge.config.rotation import ROTATION_KEY, Rotation
from sparity_edge.errors import OptionError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_WRITERS = ("self_attn.o_proj", "mlp.down_proj")  # their outputs are added to the residual stream
_NORMS = {"self_attn": BEFORE.before_attention, "mlp": BEFORE.before_ffn}


class RotatedSource(Source):
    """A source in other bases; its head stands by itself, even where the model's is tied.

    Args:
        source: what is rotated; it is closed with this one.
        kind: "global" or "layers".
        bases: orthogonal (hidden, hidden), one a layer.

    Raises:
        OptionError: the source is rotated already, or cannot be.
    """

    def __init__(self, source: Source, kind: str, bases: Sequence[Floats]) -> None:
        demand_rotatable(source)
        self._source, self._bases = source, bases
        digest = hashlib.sha256()
        for basis in bases:
            digest.update(np.ascontiguousarray(basis, dtype="<f4").data)
        self._basis = digest.hexdigest()
        self.label, self.files, self.notes = source.label, source.files, source.notes
        self.card = source.card
        self.tokenizer_files = source.tokenizer_files
        self.generation_config = source.generation_config
        rotation = asdict(Rotation(kind, self._basis))
        self.config_json = {
            **source.config_json, "tie_word_embeddings": False, ROTATION_KEY: rotation
        }  # fmt: skip
        self._whole: tuple[str, Floats] | None = None  # the latest matrix that is rotated by rows

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """As `Source.shapes`."""
        return self.config.tensor_shapes()

    def check_dtype(self, name: str) -> None:
        """As `Source.check_dtype`, for tensors that the source has."""
        if name in self._source.shapes():
            self._source.check_dtype(name)

    def native(self, name: str) -> tuple[str, int, bool] | None:  # noqa: ARG002
        """None: what is rotated comes in floats."""
        return None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array | Quantized:
        """As `Source.read`."""
        if name.endswith("norm.weight") and ".self_attn." not in name:
            return np.ones(self.config.hidden_size, dtype=np.float32)[start:stop]
        if name == EMBEDDING:
            return self._floats(name, start, stop) @ self._bases[0]
        if name == HEAD:
            tied = self._source.config.tie_word_embeddings
            rows = self._floats(EMBEDDING if tied else HEAD, start, stop)
            return self._reading(rows, "model.norm.weight", -1)
        layer, part = _place(name)
        if part == f"{ADAPTER}.weight":
            return (self._bases[layer].T @ self._bases[layer - 1])[start:stop]
        if part.startswith(_WRITERS):
            return self._writing(name, layer)[start:stop].copy()
        rows = self._floats(name, start, stop)
        if rows.ndim == 1 or part.split(".")[1] not in _READERS:
            return rows
        norm = _NORMS[part.split(".")[0]]
        return self._reading(rows, f"model.layers.{layer}.{norm}.weight", layer)

    def fingerprint(self) -> str:
        """SHA-256, in hex, of the source's fingerprint and the bases."""
        return hashlib.sha256((self._source.fingerprint() + self._basis).encode()).hexdigest()

    def close(self) -> None:
        """Close what is rotated."""
        self._source.close()

    def _reading(self, rows: Floats, norm: str, layer: int) -> Floats:
        """Rows of a matrix that reads the residual stream behind a norm."""
        scaled: Floats = rows * self._floats(norm)
        result: Floats = scaled @ self._bases[layer]
        return result

    def _writing(self, name: str, layer: int) -> Floats:
        """A matrix, or bias, whose outputs are rotated; kept, as it is asked for by rows."""
        if self._whole is None or self._whole[0] != name:
            self._whole = None
            self._whole = name, self._bases[layer].T @ self._floats(name)
        return self._whole[1]

    def _floats(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        content: Any = self._source.read(name, start, stop)
        floats: Any = content.dequantize() if isinstance(content, Quantized) else content
        result: Floats = np.asarray(floats, dtype=np.float32)
        return result


_READERS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")


def _place(name: str) -> tuple[int, str]:
    """The layer of a tensor, and its name in there."""
    _, _, layer, part = name.split(".", 3)
    return int(layer), part


def demand_rotatable(source: Source) -> None:
    """Check that a model can be rotated.

    Raises:
        OptionError: it is already, or norms stand where they cannot be folded into a matrix.
    """
    config = source.config
    if config.rotation is not None:
        raise OptionError(f"{source.label} is rotated already; start from what it was made of.")
    if config.norms != BEFORE:
        raise OptionError(
            f"{source.label} cannot be rotated: models of type {config.model_type} norm what each "
            "half of a layer gives, which no matrix takes up; choose a method without --rotate."
        )
