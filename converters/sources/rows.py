"""Rows of stored tensors as the tensors that a decoder asks for.

Some checkpoints hold q, k and v, or gate and up, as one matrix, or under another name: their rows
are told apart here, whatever the format, so that quantised numbers stay what they are. And where a
model rotates a part of each head only, the rows of q and k are put in the order that the rotation
of whole heads needs. Knows no file format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from converters.numbers.quantize import Quantized
from converters.sources.source import Array, Source
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import SourceError
from sparity_edge.model.families import family_of

_ROTATED = ("q_proj", "k_proj", "q_norm", "k_norm")  # rows are those of heads, which are rotated


def in_rows(source: Source) -> Source:
    """The source with the tensors of its decoder; itself where it has them already.

    Args:
        source: as the checkpoint has it; closed with what is returned.

    Raises:
        SourceError: a tensor has not the rows of those that it should hold.
    """
    modules = family_of(source.config_json).stored
    if not modules and source.config.rotary_dim is None:
        return source
    return RowsSource(source, modules)


def in_pairs(rows: Array, module: str, config: ModelConfig) -> Array:
    """All rows of a module of a checkpoint, in the order in which the decoder has them.

    Args:
        rows: (outputs, ...).
        module: "self_attn.q_proj".
        config: the model's.
    """
    order = _paired(config)
    if order is None or module.split(".")[-1] not in _ROTATED:
        return rows
    heads = rows.reshape(-1, config.head_dim, *rows.shape[1:])
    return heads[:, order].reshape(rows.shape)


class _Part(NamedTuple):
    """Where the rows of a tensor are."""

    tensor: str  # as the source calls it
    first: int
    rows: int


class RowsSource(Source):
    """A source whose modules hold the rows of several, or of heads that are rotated in part.

    Args:
        source: what is read; it is closed with this one.
        modules: of a layer, as they are stored -> those whose rows they hold, in this order.

    Raises:
        SourceError: a tensor has not the rows of those that it should hold.
    """

    def __init__(self, source: Source, modules: Mapping[str, tuple[str, ...]]) -> None:
        self._source, self.config = source, source.config
        self.label, self.files, self.notes = source.label, source.files, source.notes
        self.config_json, self.generation_config = source.config_json, source.generation_config
        self.tokenizer_files, self.card = source.tokenizer_files, source.card
        self._stored = source.shapes()
        self._parts: dict[str, _Part] = {}
        for name, shape in self._stored.items():
            self._parts.update(_parts(name, shape, modules, self.config, self.label))
        self._order = _paired(self.config)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """As `Source.shapes`."""
        return {
            name: (part.rows, *self._stored[part.tensor][1:]) if self._stored[part.tensor] else ()
            for name, part in self._parts.items()
        }

    def check_dtype(self, name: str) -> None:
        """As `Source.check_dtype`."""
        self._source.check_dtype(self._parts[name].tensor)

    def native(self, name: str) -> tuple[str, int, bool] | None:
        """As `Source.native`."""
        return self._source.native(self._parts[name].tensor)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array | Quantized:
        """As `Source.read`."""
        tensor, first, count = self._parts[name]
        stop = count if stop is None else min(stop, count)
        if self._order is None or name.split(".")[-2] not in _ROTATED:
            return self._source.read(tensor, first + start, first + stop)
        # The rows of a head stay inside it, so whole heads are read and then picked from.
        head_dim = len(self._order)
        lowest, highest = start // head_dim * head_dim, -(-stop // head_dim) * head_dim
        rows = self._source.read(tensor, first + lowest, first + min(highest, count))
        wanted = np.arange(start, stop)
        picked = wanted - wanted % head_dim + self._order[wanted % head_dim] - lowest
        return rows.taken(picked) if isinstance(rows, Quantized) else rows[picked]

    def fingerprint(self) -> str:
        """As `Source.fingerprint`."""
        return self._source.fingerprint()

    def close(self) -> None:
        """Close what is read."""
        self._source.close()


def _parts(
    name: str,
    shape: tuple[int, ...],
    modules: Mapping[str, tuple[str, ...]],
    config: ModelConfig,
    label: str,
) -> Iterator[tuple[str, _Part]]:
    """The tensors whose rows a stored one holds."""
    layer, module, kind = _place(name)
    if module not in modules:
        yield name, _Part(name, 0, shape[0] if shape else 0)
        return
    counts = [config.linear_shape(each)[0] for each in modules[module]]
    if not shape or shape[0] != sum(counts):
        raise SourceError(
            f"{label}: tensor {name} has shape {shape}, but the configuration asks for "
            f"{sum(counts)} rows; the files do not belong together."
        )
    first = 0
    for each, count in zip(modules[module], counts, strict=True):
        yield f"{layer}.{each}.{kind}", _Part(name, first, count)
        first += count


def _place(name: str) -> tuple[str, str, str]:
    """`model.layers.0.mlp.up_proj.weight` as layer, module and kind; empty outside of layers."""
    parts = name.split(".")
    if parts[:2] != ["model", "layers"]:
        return "", "", ""
    return ".".join(parts[:3]), ".".join(parts[3:-1]), parts[-1]


def _paired(config: ModelConfig) -> Array | None:
    """Where a head holds the rows that are rotated in pairs (i, i + head_dim / 2); None: in place.

    A checkpoint has those that are rotated first, as pairs (i, i + rotary_dim / 2).
    """
    if config.rotary_dim is None:
        return None
    rows, pairs = np.arange(config.head_dim), config.rotary_dim // 2
    rest = rows[config.rotary_dim :].reshape(2, -1)
    return np.concatenate([rows[:pairs], rest[0], rows[pairs : 2 * pairs], rest[1]])
