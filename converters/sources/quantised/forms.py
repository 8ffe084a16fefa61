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
from converters.sources.quantised.compressed import PARTS as COMPRESSED_PARTS
from converters.sources.quantised.compressed import compressed
from converters.sources.quantised.gptq import BITS as GPTQ_BITS
from converters.sources.quantised.gptq import PARTS as GPTQ_PARTS
from converters.sources.quantised.gptq import Gptq
from converters.sources.quantised.grid import Matrix
from converters.sources.quantised.mlx import BITS as MLX_BITS
from converters.sources.quantised.mlx import PARTS as MLX_PARTS
from converters.sources.quantised.mlx import Mlx
from converters.sources.quantised.nf4 import KEY as NF4_KEY
from converters.sources.quantised.nf4 import PARTS as NF4_PARTS
from converters.sources.quantised.nf4 import Nf4
from converters.sources.quantised.parts import Parts
from converters.sources.quantised.scaled import PARTS as SCALED_PARTS
from converters.sources.quantised.scaled import Scaled
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

    Args:
        block: the settings of the method, of config.json.
        label: what the user named.

    Raises:
        SourceError: a setting is not supported.
    """
    _one_of(block, "version", ("gemm", "GEMM", None), label, "AWQ")
    _one_of(block, "bits", (4, None), label, "AWQ")
    group = _group(block, label, "AWQ")
    return Form("AWQ", "qweight", AWQ_PARTS, lambda parts: Awq(parts, group))


def gptq(block: Block, label: str) -> Form:
    """GPTQ; where modules have settings of their own, sizes of tensors say which.

    Args:
        block: the settings of the method, of config.json.
        label: what the user named.

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


def mlx(block: Block, label: str) -> Form:
    """MLX; modules may have settings of their own, under their names.

    Args:
        block: the settings of the method, of config.json.
        label: what the user named.

    Raises:
        SourceError: a setting is not supported.
    """
    _mlx_settings(block, label)

    def make(parts: Parts) -> Matrix:
        own = block.get(parts.module)
        return Mlx(parts, *_mlx_settings(own if isinstance(own, Mapping) else block, label))

    return Form("MLX", "scales", MLX_PARTS, make)


def _mlx_settings(block: Block, label: str) -> tuple[int, int]:
    _one_of(block, "mode", ("affine", None), label, "MLX")
    _one_of(block, "bits", MLX_BITS, label, "MLX")
    group = _group(block, label, "MLX")
    return int(block["bits"]), -1 if group is None else group


def fp8(block: Block, label: str) -> Form:
    """FP8 with scales by blocks, or one for all.

    Args:
        block: the settings of the method, of config.json.
        label: what the user named.

    Raises:
        SourceError: a setting is not supported.
    """
    shape = _block_shape(block, "weight_block_size", label, "FP8")
    return Form(
        "FP8",
        "weight_scale_inv",
        SCALED_PARTS,
        lambda parts: Scaled(parts, "weight_scale_inv", shape),
    )


def fbgemm(block: Block, label: str) -> Form:  # noqa: ARG001 - it has no settings of weights
    """FBGEMM's FP8 with a scale each row.

    Args:
        block: the settings of the method, of config.json.
        label: what the user named.
    """
    return Form(
        "FBGEMM FP8",
        "weight_scale",
        SCALED_PARTS,
        lambda parts: Scaled(parts, "weight_scale", None),
    )


def compressed_tensors(block: Block, label: str) -> Form:
    """compressed-tensors; sizes of tensors say more of a module than its groups of targets.

    Args:
        block: the settings of the method, of config.json.
        label: what the user named.

    Raises:
        SourceError: a setting is not supported.
    """
    name = "compressed-tensors"
    _one_of(block, "format", _FORMATS, label, name)
    groups = block.get("config_groups")
    each = list(groups.values()) if isinstance(groups, Mapping) else []
    weights = [group.get("weights") for group in each if isinstance(group, Mapping)]
    settings = [value for value in weights if isinstance(value, Mapping)]
    sizes = {_group(value, label, name) for value in settings}
    blocks = {_block_shape(value, "block_structure", label, name) for value in settings} - {None}
    if len(blocks) > 1:
        raise SourceError(f"{label}: {name} with blocks of several sizes is not supported.")
    block_shape = next(iter(blocks), None)
    several = {size for size in sizes if size is not None and size > 0}
    return Form(
        name,
        "weight_scale",
        COMPRESSED_PARTS,
        lambda parts: compressed(parts, several, block_shape),
    )


def bitsandbytes(block: Block, label: str) -> Form:
    """bitsandbytes in four bits.

    Args:
        block: the settings of the method, of config.json.
        label: what the user named.

    Raises:
        SourceError: a setting is not supported.
    """
    _one_of(block, "load_in_8bit", (False, None), label, "bitsandbytes")
    return Form("bitsandbytes", NF4_KEY, NF4_PARTS, Nf4)


def _block_shape(block: Block, key: str, label: str, name: str) -> tuple[int, int] | None:
    shape = block.get(key)
    if shape is None:
        return None
    sides = [whole(side) for side in shape] if isinstance(shape, list) else []
    fits = all(isinstance(side, int) and 0 < side <= MAX_DIMENSION for side in sides)
    if len(sides) != 2 or not fits:
        raise SourceError(
            f"{label}: config.json says {name} with {key}={show(shape)}, which is no pair of "
            "numbers of rows and columns; the file is damaged, fetch it again."
        )
    return sides[0], sides[1]


_FORMATS = (
    "pack-quantized", "float-quantized", "int-quantized", "naive-quantized", "mixed-precision", None
)  # fmt: skip
_VERSIONS = ("gptq", "gptq_v2", None)


def _one_of(block: Block, key: str, values: tuple[Any, ...], label: str, name: str) -> None:
    value = whole(block.get(key))
    if value not in values or (isinstance(value, bool) and False not in values):
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
