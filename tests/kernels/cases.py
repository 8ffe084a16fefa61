"""A case for each operation of the table: the operation on random arrays, and its results.

`test_table.py` runs each on the kernels and on NumPy, by formats, sizes and numbers of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from builders import Form, bundle_of, filled, lanes, matrix_of, normal, some
from packing import (
    INT2K,
    INT3K,
    INT4,
    INT4_MINIMUM,
    INT4K,
    INT5,
    INT5_MINIMUM,
    INT5K,
    INT6K,
    INT8,
    IQ4,
    IQ4K,
)

from sparity_edge.arrays import Floats, padded, rows
from sparity_edge.kernels.active_list import empty_list
from sparity_edge.kernels.operations import HeadNorm
from sparity_edge.kernels.screen import Candidates, error_bytes
from sparity_edge.kernels.sparse_vector import Selector
from sparity_edge.kernels.table import TABLE

FORMS = {
    "f32": (("f32", 0, False),),
    "bf16": (("bf16", 0, False),),
    "int8": (INT8,),
    "int4": (INT4, INT4_MINIMUM),
    "int5": (INT5, INT5_MINIMUM),
    "int4k": (INT4K,),
    "int5k": (INT5K,),
    "int6k": (INT6K,),
    "int2k": (INT2K,),
    "int3k": (INT3K,),
    "iq4": (IQ4,),
    "iq4k": (IQ4K,),
}
K_QUANTS = (INT2K, INT3K, INT4K, INT5K, INT6K, IQ4K)


@dataclass(frozen=True)
class Setting:
    """What a case is run on.

    Args:
        operation: of the table.
        size: (outputs, inputs) of a matrix; without one (1, numbers of a row or head).
        tokens: rows.
        decoding: each row is of a sequence of its own.
        form: of the matrix.
        orientation: of the matrix.
        density: share of channels that are listed.
        scale: of activations.
        value: stands in the place of the last token's activation 3, or in place of none.
    """

    operation: str
    size: tuple[int, int]
    tokens: int = 1
    decoding: bool = False
    form: Form = ("f32", 0, False)
    orientation: str = "output"
    density: float = 1.0
    scale: float = 1.0
    value: float | None = None

    def __str__(self) -> str:
        number, group, minimum = self.form
        form = f"{number}{group or ''}{'m' if minimum else ''}"
        kind = f"{'decoding' if self.decoding else ''}{self.tokens}"
        more = "" if self.value is None else f"-{self.value}"
        sizes = "x".join(map(str, self.size))
        return f"{self.operation}-{form}-{self.orientation}-{sizes}-{kind}-{self.density}{more}"

    def x(self, seed: int, size: int) -> Floats:
        """Activations, the odd one among them."""
        x = normal(seed, self.tokens, size, self.scale)
        if self.value is not None:
            x[-1, min(3, size - 1)] = self.value
        return x


Case = Callable[[Any, Setting], tuple[Callable[[Any], None], tuple[Any, ...]]]


def linear(machine: Any, at: Setting) -> Any:
    outputs, inputs = at.size
    x, out = at.x(1, inputs), normal(2, at.tokens, outputs)
    bias = padded(normal(3, 1, outputs)[0])
    matrix = machine.matrix(matrix_of(at.form, at.orientation, at.size, 4))
    if at.density == 1:
        return lambda ops: ops.linear(x, matrix, out, bias, True), (out,)
    selector = Selector(_thresholds(x, at.density), None, None, padded(np.full(inputs, 0.01)))
    return lambda ops: ops.linear(ops.sparsify(x, selector), matrix, out, bias, True), (out,)


def neurons(machine: Any, at: Setting) -> Any:
    hidden, count = at.size
    bundle = machine.bundle(bundle_of(at.form, at.form, count, hidden, 4))
    x, gate, out = normal(1, at.tokens, hidden), at.x(2, count), normal(3, at.tokens, hidden)
    up, middle = rows(at.tokens, count), rows(at.tokens, count)
    if at.density == 1:
        added = at.size[0] != at.size[1]
        return lambda ops: ops.neurons(x, gate, bundle, up, middle, out, False, added), (out,)
    # Of a prompt up goes through ReLU; test_zero_gates.py has it in decoding.
    selector, relu_up = Selector(_thresholds(gate, at.density), None, None, None), at.tokens == 7

    def forward(ops: Any) -> None:
        ops.neurons(x, ops.sparsify(gate, selector), bundle, up, middle, out, relu_up)

    return forward, (out,)


def embed(machine: Any, at: Setting) -> Any:
    ids = np.random.default_rng(0).integers(0, at.size[0], at.tokens)
    table = machine.matrix(matrix_of(at.form, "output", at.size, 4))
    out = rows(at.tokens, at.size[1])
    return lambda ops: ops.embed(ids, table, out), (out,)


def vmmsp(machine: Any, at: Setting) -> Any:
    outputs, inputs = at.size
    x, out, active = at.x(1, inputs), normal(2, 1, outputs), some(outputs, at.density, 3)
    matrix, bias = machine.matrix(matrix_of(at.form, "output", at.size, 4)), padded(out[0])
    return lambda ops: ops.vmmsp(x, matrix, active, out, bias), (out,)


def screened(machine: Any, at: Setting) -> Any:
    """By a screen that has nothing to do with the matrix, so that all outputs may be large."""
    outputs, inputs = at.size
    coarse = lanes(np.ascontiguousarray(normal(6, outputs, 64)))
    errors = error_bytes(np.abs(normal(7, 1, outputs)[0]))
    screen = machine.screen(matrix_of(at.form, "output", (64, inputs), 5), coarse, errors)
    matrix = machine.matrix(matrix_of(at.form, "output", at.size, 4))
    x, out, asked = at.x(1, inputs), rows(1, outputs), Candidates(outputs, 64)
    asked.ask(3, np.arange(0, outputs, 100))
    return lambda ops: ops.screened(x, matrix, screen, asked, out), (out, asked.found[:2])


def rmsnorm(_machine: Any, at: Setting) -> Any:
    size = at.size[1]
    x, weight, out = at.x(1, size), padded(normal(2, 1, size)[0]), normal(3, at.tokens, size)
    return lambda ops: ops.rmsnorm(x, weight, 1e-5, out, at.tokens > 1), (out,)


def _elementwise(operation: str, *numbers: float, vectors: int = 1) -> Case:
    """An operation on vectors, which leaves its result in the first of them."""

    def case(_machine: Any, at: Setting) -> Any:
        xs = [at.x(1, at.size[1]), normal(2, at.tokens, at.size[1])][:vectors]
        return lambda ops: getattr(ops, operation)(*xs, *numbers, xs[0]), (xs[0],)

    return case


def sparsify(_machine: Any, at: Setting) -> Any:
    """Counts of all rules, whose channels other tests compare one by one."""
    x, size = at.x(1, at.size[1]), at.size[1]
    kept = np.array([max(1, int(at.density * size))], dtype=np.int64)
    channels = (padded(np.ones(size)), padded(np.full(size, 0.1)))
    selectors = (
        Selector(_thresholds(x, at.density), None, None, None),
        Selector(None, kept, *channels),
        Selector(None, np.minimum(kept, 5), *channels, neighbours=8),
    )
    counts = np.zeros(3, dtype=np.int64)
    forward = lambda ops: ops.tally([ops.sparsify(x, each) for each in selectors], counts)  # noqa: E731
    return forward, (counts,)


def select_n_of_m(_machine: Any, at: Setting) -> Any:
    x, active = at.x(1, at.size[1]), empty_list(at.size[1])
    return lambda ops: ops.select_n_of_m(x, 3, 7, active), (active[16:][: at.size[1] // 7 * 3],)


def rope(_machine: Any, at: Setting) -> Any:
    x, table = at.x(1, 3 * at.size[1]), np.ascontiguousarray(normal(2, 40, at.size[1]))
    position, norm = np.array([2]), _head_norm(at)
    return lambda ops: ops.rope(x, table, position, 3, x, norm), (x,)


def append(_machine: Any, at: Setting) -> Any:
    return _attention(at, looking=False)


def attention(_machine: Any, at: Setting) -> Any:
    return _attention(at, looking=True)


def _attention(at: Setting, looking: bool) -> Any:
    head_dim, random = at.size[1], np.random.default_rng(2)
    q, (k, v) = at.x(1, 6 * head_dim), (normal(seed, at.tokens, 2 * head_dim) for seed in (2, 3))
    table, position = np.ascontiguousarray(normal(4, 600, head_dim)), np.array([290])
    values = random.standard_normal((2, 2, 600, head_dim))
    cached = [filled(each, "f32") for each in values]
    out, norm = rows(*q.shape), _head_norm(at)

    def forward(ops: Any) -> None:
        ops.append(k, v, table, position, *cached, norm)
        if looking:
            ops.attention(q, *cached, position, 280, out)

    return forward, (out,) if looking else tuple(cached)


def _head_norm(at: Setting) -> HeadNorm | None:
    return HeadNorm(padded(normal(8, 1, at.size[1])[0]), 1e-3) if at.tokens > 1 else None


def _thresholds(x: Floats, density: float) -> Floats:
    """One threshold for all channels, exceeded by the share `density` of numbers, (channels,)."""
    finite = np.abs(x)[np.isfinite(x)]
    level = np.inf if density == 0 else np.quantile(finite, 1 - density)
    return padded(np.full(x.shape[1], level))


CASES: dict[str, Case] = {
    each.__name__: each
    for each in (
        linear, neurons, embed, vmmsp, screened, rmsnorm, sparsify, select_n_of_m, rope, append,
        attention,
    )
}  # fmt: skip
CASES |= {name: _elementwise(name, vectors=2) for name in ("silu_mul", "multiply")}
CASES |= {"relu": _elementwise("relu", 0.25), "scale": _elementwise("scale", 0.3)}
CASES |= {"tally": sparsify, "silu": _elementwise("silu")}
OF_ACTIVATIONS = (
    "rmsnorm", "silu", "silu_mul", "relu", "scale", "multiply", "sparsify", "select_n_of_m", "rope",
)  # fmt: skip


def operations() -> set[str]:
    """Every operation of the table."""
    return {name for entry in TABLE for name in entry.operation.split(", ")}


def settings() -> Iterator[Setting]:
    """Every operation on every format and orientation that the table gives it, at odd sizes."""
    for operation in OF_ACTIVATIONS:
        for size in (14, 30, 334, 2050):
            for tokens in (1,) if operation == "select_n_of_m" else (1, 5):
                yield Setting(operation, (1, size), tokens, density=0.4)
    for tokens in (1, 70):
        for head_dim in (2, 40, 64):
            yield Setting("attention", (1, head_dim), tokens)
            yield Setting("append", (1, head_dim), tokens)
    for size in ((1, 1), (33, 70), (300, 590), (1537, 640)):
        yield Setting("screened", size)
    for operation, form, orientation in sorted(_of_weights()):
        yield from _sizes(Setting(operation, (1, 1), 1, False, form, orientation))


def _of_weights() -> set[tuple[str, Form, str]]:
    """Operations that read a matrix, with its formats and orientations."""
    return {
        (entry.operation, form, orientation)
        for entry in TABLE
        for name in entry.formats
        for form in FORMS[name]
        for orientation in _orientations(entry.orientation)
    }


def _orientations(told: str) -> tuple[str, ...]:
    return ("output", "input") if told == "either" else (told,)


def _sizes(at: Setting) -> Iterator[Setting]:
    """Sizes about vectors, blocks and panels; one token, a prompt, several that decode; lists."""
    sizes = [(1, 1), (33, 70), (300, 590), (1537, 640)]
    if at.form in K_QUANTS:
        sizes = [(1, 256), (33, 768), (300, 1280)]
        if at.orientation == "bundle":
            sizes = [(256, 256), (768, 1280)]
        elif at.orientation == "input":
            sizes.append((4500, 256))
    ways = [(1, False), (7, False), (5, True)]
    if at.operation == "vmmsp":
        ways = ways[:1]
    elif at.operation == "embed":
        ways = ways[:2]
    densities = (1.0,)
    if at.operation == "vmmsp" or at.orientation in ("input", "bundle"):
        densities = (0.0, 0.3, 1.0)
    for size in sizes:
        for tokens, decoding in ways:
            for density in densities:
                yield replace(at, size=size, tokens=tokens, decoding=decoding, density=density)
