"""Settings of each method in config.json, checked: which tensors it has, and how they are read.

A form says by which tensor a quantised module is known, which parts belong to it, and makes the
matrix of a module. What cannot be read of a method is refused here, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converters.sources.quantised.awq import PARTS as AWQ_PARTS
from converters.sources.quantised.awq import Awq
from converters.sources.quantised.gptq import BITS as GPTQ_BITS
from converters.sources.quantised.gptq import PARTS as GPTQ_PARTS
from converters.sources.quantised.gptq import Gptq
from converters.sources.quantised.grid import Matrix
from converters.sources.quantised.parts import Parts
from sparity_edge.config.values import MAX_DIMENSION, show, whole
from sparity_edge.errors import SourceError

Block = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """How the quantised matrices of one checkpoint are stored."""

    name: str  # of the method, for people
    key: str  # the part that every quantised module has
    parts: tuple[str, ...]
    make: Callable[[Parts], Matrix]


def awq(block: Block, label: str) -> Form:
    """AWQ: versions but GEMM have other orders of numbers.

    Raises:
        SourceError: a setting is not supported.
    """
    _one_of(block, "version", ("gemm", "GEMM", None), label, "AWQ")
    _one_of(block, "bits", (4, None), label, "AWQ")
    group = _group(block, label, "AWQ")
    return Form("AWQ", "qweight", AWQ_PARTS, lambda parts: Awq(parts, group))


def gptq(block: Block, label: str) -> Form:
    """GPTQ; where modules have settings of their own, sizes of tensors say which.

    Raises:
        SourceError: a setting is not supported.
    """
    _one_of(block, "bits", (*GPTQ_BITS, None), label, "GPTQ")
    _one_of(block, "pack_dtype", ("int32", None), label, "GPTQ")
    stored = block.get("checkpoint_format") or block.get("format")
    _one_of({"checkpoint_format": stored}, "checkpoint_format", _VERSIONS, label, "GPTQ")
    group = None if block.get("dynamic") else _group(block, label, "GPTQ")
    first = stored != "gptq_v2"
    return Form("GPTQ", "qweight", GPTQ_PARTS, lambda parts: Gptq(parts, group, first))


_VERSIONS = ("gptq", "gptq_v2", None)


def _one_of(block: Block, key: str, values: tuple[Any, ...], label: str, name: str) -> None:
    value = whole(block.get(key))
    if value not in values or isinstance(value, bool):
        known = ", ".join(str(each) for each in values if each is not None)
        raise SourceError(
            f"{label}: config.json says {name} with {key}={show(value)}, which is not supported "
            f"({known} is); use another checkpoint of the model."
        )


def _group(block: Block, label: str, name: str) -> int | None:
    """group_size; None where nothing is said, -1 for all inputs."""
    value = whole(block.get("group_size"))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= MAX_DIMENSION:
        raise SourceError(
            f"{label}: config.json says {name} with group_size={show(value)}, which is no number "
            "of inputs; the file is damaged, fetch it again."
        )
    return value
