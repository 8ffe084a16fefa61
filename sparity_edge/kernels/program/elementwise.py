"""Records of what happens between the matrices: embedding, norms, gates, rotary positions."""

from __future__ import annotations

from typing import Any

from sparity_edge.arrays import Floats, Integers
from sparity_edge.kernels.decode import elementwise
from sparity_edge.kernels.kept.families import family_of
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.operations import HeadNorm
from sparity_edge.kernels.program.recorder import Recorder

NORM = ("norm", "epsilon")


def embed(recorder: Recorder, ids: Integers, table: Matrix, out: Floats) -> None:
    """Rows `ids` of an output-major table."""
    recorder.record(
        family_of(table.layout).embed, len(out), table=table, ids=ids, out=out,
        out_stride=out.strides[0], writes=out,
    )  # fmt: skip


def rmsnorm(
    recorder: Recorder,
    x: Floats,
    weight: Floats,
    epsilon: float,
    out: Floats,
    accumulate: bool = False,
) -> None:
    """x / sqrt(mean(x**2) + epsilon) * weight (+ out) for every row; the weight is padded."""
    tokens, size = x.shape
    recorder.record(
        elementwise.rmsnorm, tokens, x=x, x_stride=x.strides[0], weight=weight, out=out,
        out_stride=out.strides[0], size=size, epsilon=epsilon, accumulate=accumulate, writes=out,
    )  # fmt: skip


def rope(
    recorder: Recorder,
    x: Floats,
    table: Floats,
    position: Integers,
    heads: int,
    out: Floats,
    norm: HeadNorm | None = None,
) -> None:
    """Rotate the heads of every row by its position, after `norm` if there is one."""
    tokens, size = x.shape
    recorder.record(
        elementwise.rope, tokens, x=x, x_stride=x.strides[0], table=table, position=position,
        heads=heads, head_dim=size // heads, out=out, token_stride=out.strides[0],
        **norm_words(norm), writes=out,
    )  # fmt: skip


def norm_words(norm: HeadNorm | None) -> dict[str, Any]:
    """The words `norm` and `epsilon` of `rope` and `append`."""
    return {"norm": 0, "epsilon": 0} if norm is None else dict(zip(NORM, norm, strict=True))


def silu_mul(recorder: Recorder, gate: Floats, up: Floats, out: Floats) -> None:
    """silu(gate) * up."""
    tokens, width = gate.shape
    blocks = -(-width // elementwise.BLOCK)
    recorder.record(
        elementwise.silu_mul, tokens * blocks, gate=gate, gate_stride=gate.strides[0], up=up,
        up_stride=up.strides[0], out=out, out_stride=out.strides[0], width=width, blocks=blocks,
        writes=out,
    )  # fmt: skip


def silu(recorder: Recorder, x: Floats, out: Floats) -> None:
    """x / (1 + exp(-x))."""
    _blockwise(recorder, elementwise.silu, x, out)


def relu(recorder: Recorder, x: Floats, threshold: float, out: Floats) -> None:
    """x where it is above the threshold, else 0."""
    _blockwise(recorder, elementwise.relu, x, out, threshold=threshold)


def scale(recorder: Recorder, x: Floats, factor: float, out: Floats) -> None:
    """x * factor."""
    _blockwise(recorder, elementwise.scale, x, out, factor=factor)


def multiply(recorder: Recorder, x: Floats, y: Floats, out: Floats) -> None:
    """x * y."""
    _blockwise(recorder, elementwise.multiply, x, out, y=y, y_stride=y.strides[0])


def _blockwise(recorder: Recorder, kernel: Kernel, x: Floats, out: Floats, **more: Any) -> None:
    tokens, width = x.shape
    blocks = -(-width // elementwise.BLOCK)
    recorder.record(
        kernel, tokens * blocks, x=x, x_stride=x.strides[0], out=out, out_stride=out.strides[0],
        width=width, blocks=blocks, writes=out, **more,
    )  # fmt: skip
