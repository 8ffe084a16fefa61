"""Plan families to bytes and back; which folder carries them is plan_file.py's concern.

A plan file is a shard of its own: folded matrices as any packed matrix, arrays as float32 vectors,
the other fields as JSON in the metadata. Reading trusts nothing. See docs/format.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sparity_edge.choices import LAYOUTS
from sparity_edge.config.model_config import LAYER_LINEARS, ModelConfig
from sparity_edge.errors import FormatError
from sparity_edge.packed.folder import Vector, load_shard, view
from sparity_edge.packed.layout import PackedMatrix
from sparity_edge.packed.shards import (
    TensorSpec,
    build_header,
    damaged,
    parse_object,
    read_header,
    shown,
)
from sparity_edge.plans.plan import NEURONS, PIECES, PlanFamily

PLAN_KEY = "sparity_edge_plan"  # of the metadata
PLAN_VERSION = 2
FIELDS = {
    "version": int,
    "name": str,
    "method": str,
    "rule": str,
    "layout": str,
    "model": str,
    "notes": dict,
}
# Tensors: two vectors, arrays by piece named `tables.q_proj` and so on, matrices `means.LAYER`.
PER_LEVEL = ("levels", "active")
BY_PIECE = ("tables", "weights", "centres", "predictors", "gains")
MEANS = "means"


def in_single_precision(family: PlanFamily) -> PlanFamily:
    """The family as it will be read again.

    Raises:
        FormatError: rounding spoils it.
    """

    def rounded(array: Any) -> Vector:
        return np.asarray(array, dtype=np.float32)

    def all_rounded(arrays: Mapping[str, Vector]) -> dict[str, Vector]:
        return {piece: rounded(array) for piece, array in arrays.items()}

    with np.errstate(over="ignore"):
        return replace(
            family,
            levels=rounded(family.levels),
            active=rounded(family.active),
            tables=all_rounded(family.tables),
            weights=all_rounded(family.weights),
            centres=all_rounded(family.centres),
            predictors=all_rounded(family.predictors),
            gains=all_rounded(family.gains),
        )


def content(family: PlanFamily) -> Iterator[bytes | memoryview]:
    """The bytes of a plan file, matrices in front so that they are aligned."""
    matrices = {
        f"{MEANS}.{layer}": matrix
        for layer, matrix in enumerate(family.means)
        if matrix is not None
    }
    vectors = {key: getattr(family, key) for key in PER_LEVEL}
    for group in BY_PIECE:
        vectors |= {f"{group}.{piece}": each for piece, each in getattr(family, group).items()}
    tensors: dict[str, TensorSpec] = {name: matrix.layout for name, matrix in matrices.items()}
    tensors |= {name: (vector.size,) for name, vector in vectors.items()}
    fields = {key: getattr(family, key) for key in FIELDS if key != "version"}
    fields |= {"version": PLAN_VERSION, "notes": dict(family.notes)}
    yield build_header(tensors, {PLAN_KEY: json.dumps(fields, allow_nan=False)})
    for matrix in matrices.values():
        yield matrix.data.data
    for vector in vectors.values():
        yield np.ascontiguousarray(vector, dtype="<f4").reshape(-1).view(np.uint8).data


class PlanFile:
    """A plan file whose header has been checked.

    Args:
        path: where it is.

    Raises:
        FormatError: it is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._stored, metadata = read_header(path)
        except OSError as error:
            raise damaged(path, f"cannot be read ({error.strerror or error})") from error
        self.fields = self._checked_fields(metadata)

    def read(self, config: ModelConfig) -> PlanFamily:
        """The family, if it fits the model.

        Raises:
            FormatError: it does not, or contradicts itself.
        """
        path, layers = self._path, config.num_hidden_layers
        arena = load_shard(path)
        arrays: dict[str, dict[str, Vector]] = {group: {} for group in BY_PIECE}
        per_level: dict[str, Vector] = {}
        means: dict[str, PackedMatrix] = {}
        places = [f"{MEANS}.{layer}" for layer in range(layers)]
        for name, stored in self._stored.items():
            group, _, piece = name.partition(".")
            tensor = view(stored, arena)
            if isinstance(tensor, PackedMatrix) and name in places:
                means[name] = tensor
            elif isinstance(tensor, np.ndarray) and name in PER_LEVEL:
                per_level[name] = tensor
            elif isinstance(tensor, np.ndarray) and group in BY_PIECE and piece in PIECES:
                arrays[group][piece] = self._by_layer(name, tensor, layers)
            else:
                raise damaged(path, f"holds {shown(name)}, which is no part of a plan for a model")
        if missing := set(PER_LEVEL) - set(per_level):
            raise damaged(path, f"lacks {min(missing)}")
        parts: dict[str, Any] = {**self.fields, **per_level, **arrays}
        del parts["version"]
        folded = tuple(means.get(place) for place in places) if means else ()
        try:
            family = PlanFamily(**parts, means=folded)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
        check_sizes(path, family, config)
        return family

    def _by_layer(self, name: str, values: Vector, layers: int) -> Vector:
        """(levels, layers) of a table, (layers, channels) of anything else."""
        if values.size % layers:
            raise damaged(self._path, f"does not hold {shown(name)} for all layers")
        table = name.startswith("tables.")
        return values.reshape((-1, layers) if table else (layers, -1))

    def _checked_fields(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        path, text = self._path, metadata.get(PLAN_KEY)
        if not isinstance(text, str):
            raise damaged(path, "lacks the metadata of a plan")
        fields = parse_object(text.encode(errors="replace"), path)
        version = fields.get("version")
        if type(version) is int and version != PLAN_VERSION:
            raise damaged(path, f"has plan version {version}, this program reads {PLAN_VERSION}")
        if set(fields) != set(FIELDS):
            raise damaged(path, f"does not have exactly the fields {', '.join(FIELDS)}")
        for key, kind in FIELDS.items():
            if type(fields[key]) is not kind:
                raise damaged(path, f"has a {key} that is not of type {kind.__name__}")
        if fields["layout"] not in LAYOUTS:
            raise damaged(path, f"names the unknown layout {shown(fields['layout'])}")
        return fields


def check_sizes(path: Path, family: PlanFamily, config: ModelConfig) -> None:
    """Refuse a family whose layers or channels are not those of the model.

    Raises:
        FormatError: they differ.
    """
    if family.layers != config.num_hidden_layers:
        raise damaged(path, f"is for {family.layers} layers, not {config.num_hidden_layers}")
    channels = {name.rpartition(".")[2]: config.linear_shape(name)[1] for name in LAYER_LINEARS}
    channels[NEURONS] = config.intermediate_size
    for arrays in (family.weights, family.centres):
        for piece, array in arrays.items():
            if array.shape != (family.layers, channels[piece]):
                raise damaged(path, f"describes other channels of {piece} than the model has")
    for piece, gain in family.gains.items():
        if gain.shape != (family.layers, 1 + config.hidden_size):
            raise damaged(path, f"holds a gain of {piece} that is not of the model's hidden size")
    side = (config.hidden_size, config.hidden_size)
    if any(matrix is not None and matrix.layout.shape != side for matrix in family.means):
        raise damaged(path, f"holds a folded matrix that is not of shape {list(side)}")
