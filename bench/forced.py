"""A whole decoded token with forced selection: what a sparsity plan can gain on a shape.

Layers are recorded as a model would run them, with random lists of an exact density in place of
those that selection finds; the selection itself runs too, and its list is thrown away. Weights come
from a pool that is used again where it ends, far beyond any cache. "Bytes allow" is the speed-up of
a token whose time were that of its bytes: scales of input-major matrices (2 bytes for 32 channels
of a column) are read whatever the density, and so is the head. Plans:

    chess    gate decides about up and down, attn_in about q, attn_out about o
    gate     gate alone, centred: a dense hidden x hidden product stands for what is left out
    inputs   attn_in, attn_out, mlp_in and mlp_mid, as in TEAL

    python bench/forced.py --shape Llama-3-8B --density 0.5
    python bench/forced.py --shape Qwen2.5-1.5B --density 0.3 --plans gate
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from shared.common import parser, save, say, thread_count
from shared.synthetic import SHAPES, Shape

from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, timed, with_spread

PLANS = ("chess", "gate", "inputs")
EPSILON, CONTEXT = 1e-5, 512


class Token:
    """The arrays and weights of one token's way through some layers, under one plan."""

    def __init__(self, bench: Any, shape: Shape, layers: int, form: str, density: float) -> None:
        from shared.cases import normal

        from sparity_edge.arrays import padded, rows
        from sparity_edge.kernels.active_list import empty_list

        self.bench, self.shape, self.layers = bench, shape, layers
        self.form, self.density = form, density
        heads, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.x, self.h, self.norm = normal(shape.hidden), rows(1, shape.hidden), padded(
            np.ones(shape.hidden)
        )  # fmt: skip
        self.q, self.k, self.v = rows(1, heads), rows(1, kv), rows(1, kv)
        self.mixed, self.logits = rows(1, heads), rows(1, shape.vocab)
        self.gate, self.up = rows(1, shape.inner), rows(1, shape.inner)
        self.ones = rows(1, shape.inner)
        self.ones[:] = 1
        self.found = empty_list(max(heads, shape.inner, shape.hidden))
        self.position = np.full(1, CONTEXT - 1, dtype=np.int64)
        self.angles = rows(CONTEXT, shape.head_dim)
        cached = (shape.kv_heads, CONTEXT, shape.head_dim)
        self.keys, self.values = np.zeros((2, *cached), dtype=np.float32)
        self.nbytes = 0

    def run(self, plan: str) -> Any:
        """A function that runs the token; counts `nbytes` that it reads."""
        self.nbytes = 0
        record = getattr(self, f"_{plan}")

        def forward(ops: Any) -> None:
            # In place of an embedding: the sums of the run before must not grow for ever.
            ops.rmsnorm(self.x, self.norm, EPSILON, self.x)
            for layer in range(self.layers):
                record(ops, layer)
            ops.rmsnorm(self.x, self.norm, EPSILON, self.h)
            ops.linear(self.h, self._dense(self.shape.vocab, self.shape.hidden), self.logits)

        run = self.bench.machine.prepare(forward)
        return lambda: timed(lambda: run(False))

    def _none(self, ops: Any, layer: int) -> None:  # noqa: ARG002
        self._dense_attention(ops)
        ops.rmsnorm(self.x, self.norm, EPSILON, self.h)
        with ops.together():
            for out in (self.gate, self.up):
                ops.linear(self.h, self._dense(self.shape.inner, self.shape.hidden), out)
        ops.silu_mul(self.gate, self.up, self.gate)
        down = self._dense(self.shape.hidden, self.shape.inner)
        ops.linear(self.gate, down, self.x, accumulate=True)

    def _dense_attention(self, ops: Any) -> None:
        q, k, v = self._qkv_sides()
        ops.rmsnorm(self.x, self.norm, EPSILON, self.h)
        with ops.together():
            for out, sides in ((self.q, q), (self.k, k), (self.v, v)):
                ops.linear(self.h, self._dense(*sides), out)
        self._attend(ops)
        ops.linear(self.mixed, self._dense(*self._o_sides()), self.x, accumulate=True)

    def _chess(self, ops: Any, layer: int) -> None:
        q, k, v = self._qkv_sides()
        ops.rmsnorm(self.x, self.norm, EPSILON, self.h)
        with ops.together():
            ops.linear(self.h, self._dense(*k), self.k)
            ops.linear(self.h, self._dense(*v), self.v)
        self._spvmm(ops, layer, self.h, q, [self.q])
        self._attend(ops)
        self._spvmm(ops, layer, self.mixed, self._o_sides(), [self.x], accumulate=True)
        self._gated(ops, layer)

    def _gate(self, ops: Any, layer: int) -> None:
        self._dense_attention(ops)
        self._gated(ops, layer)
        square = self._dense(self.shape.hidden, self.shape.hidden)
        ops.linear(self.h, square, self.x, accumulate=True)

    def _inputs(self, ops: Any, layer: int) -> None:
        heads, kv = self.q.shape[1], self.k.shape[1]
        hidden, inner = self.shape.hidden, self.shape.inner
        ops.rmsnorm(self.x, self.norm, EPSILON, self.h)
        self._spvmm(ops, layer, self.h, (heads + 2 * kv, hidden), [self.q, self.k, self.v])
        self._attend(ops)
        self._spvmm(ops, layer, self.mixed, self._o_sides(), [self.x], accumulate=True)
        ops.rmsnorm(self.x, self.norm, EPSILON, self.h)
        self._spvmm(ops, layer, self.h, (2 * inner, hidden), [self.gate, self.up])
        ops.silu_mul(self.gate, self.up, self.gate)
        self._spvmm(ops, layer, self.gate, (hidden, inner), [self.x], accumulate=True)

    def _gated(self, ops: Any, layer: int) -> None:
        from shared.cases import layout_of, random_list

        from sparity_edge.packed.bundle import BundleLayout

        hidden, inner = self.shape.hidden, self.shape.inner
        ops.rmsnorm(self.x, self.norm, EPSILON, self.h)
        ops.linear(self.h, self._dense(inner, hidden), self.gate)
        ops.silu_mul(self.gate, self.ones, self.gate)
        ops.select_threshold(self.gate, self.ones[0], self.found)
        up = layout_of(self.form, "output", (inner, hidden))
        layout = BundleLayout(up, layout_of(self.form, "input", (hidden, inner)))
        active = random_list(inner, self.density, layer)
        self.nbytes += self.bench.active_bytes(layout, active)
        ops.ffn(self.h, self.gate, self.bench.bundle(layout), active, self.x, accumulate=True)

    def _spvmm(
        self, ops: Any, layer: int, x: Any, sides: tuple[int, int], outs: Any,
        accumulate: bool = False,
    ) -> None:  # fmt: skip
        from shared.cases import layout_of, random_list

        layout = layout_of(self.form, "input", sides)
        ops.select_threshold(x, self._thresholds(sides[1]), self.found)
        active = random_list(sides[1], self.density, layer)
        self.nbytes += self.bench.active_bytes(layout, active)
        ops.spvmm(x, self.bench.matrix(layout), active, outs, accumulate=accumulate)

    def _thresholds(self, size: int) -> Any:
        from sparity_edge.arrays import rows

        thresholds = rows(1, size)[0]
        thresholds[:] = 0.67
        return thresholds

    def _attend(self, ops: Any) -> None:
        with ops.together():
            ops.rope(self.q, self.angles, self.position, self.shape.heads, self.q)
            ops.append(self.k, self.v, self.angles, self.position, self.keys, self.values)
        ops.attention(self.q, self.keys, self.values, self.position, None, self.mixed)

    def _dense(self, outputs: int, inputs: int) -> Any:
        from shared.cases import layout_of

        layout = layout_of(self.form, "output", (outputs, inputs))
        self.nbytes += layout.nbytes
        return self.bench.matrix(layout)

    def _qkv_sides(self) -> tuple[tuple[int, int], ...]:
        return tuple((out.shape[1], self.shape.hidden) for out in (self.q, self.k, self.v))

    def _o_sides(self) -> tuple[int, int]:
        return self.shape.hidden, self.q.shape[1]


def measure(bench: Any, options: Any, form: str) -> dict[str, Any]:
    """Dense and every plan, interleaved with streaming reads."""
    shape = SHAPES[options.shape]
    layers = options.layers or shape.layers
    runs, nbytes = {}, {}
    for plan in ("none", *options.plans):
        token = Token(bench, shape, layers, form, options.density)
        runs[plan] = token.run(plan)
        nbytes[plan] = token.nbytes
    say(f"{options.shape}, {layers} layers, {form}")
    samples = alternate({**runs, "streaming": bench.memory.streaming()}, options.rounds, say=say)
    ideal = {
        plan: [each / speed / 1e9 for speed in samples["streaming"]]
        for plan, each in nbytes.items()
    }
    return {
        "shape": options.shape, "layers": layers, "format": form, "density": options.density,
        "machine": machine(bench.machine.threads), "rounds": options.rounds,
        "streaming_gb_s": summary(samples["streaming"]),
        "plans": {
            plan: {
                "bytes_a_token": nbytes[plan],
                "seconds_a_token": summary(samples[plan]),
                "of_streaming": summary(ratios(ideal[plan], samples[plan])),
                "speedup": summary(ratios(samples["none"], samples[plan])),
                "bytes_allow": nbytes["none"] / nbytes[plan],
            }
            for plan in runs
        },
    }  # fmt: skip


def show(result: dict[str, Any]) -> list[list[object]]:
    """A line for each plan."""
    dense = result["plans"]["none"]["bytes_a_token"]
    return [
        [
            f"{result['shape']} x {result['layers']}", result["format"],
            "dense" if plan == "none" else f"{plan} at {result['density']}",
            f"{1000 * part['seconds_a_token']['median']:.2f}",
            f"{part['bytes_a_token'] / dense:.2f}",
            f"{part['of_streaming']['median']:.0%}", with_spread(part["speedup"]),
            f"{dense / part['bytes_a_token']:.2f}",
        ]
        for plan, part in result["plans"].items()
    ]  # fmt: skip


def main() -> int:
    command = parser(__doc__, "forced")
    command.add_argument("--shape", choices=SHAPES, default="Llama-3-8B", metavar="SHAPE")
    command.add_argument("--layers", type=int, help="default: those of the model")
    command.add_argument("--density", type=float, default=0.5, help="default: %(default)s")
    command.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS), metavar="PLAN")
    command.add_argument("--formats", nargs="+", default=["int8", "int4"], metavar="FORMAT")
    options = command.parse_args()
    if options.quick:
        options.rounds, options.layers = 3, min(options.layers or 4, 4)
    report: dict[str, Any] = {}
    if options.out.exists():
        report = json.loads(options.out.read_text(encoding="utf-8"))

    from shared.cases import Bench

    bench = Bench(thread_count(options.threads))
    lines = []
    for form in options.formats:
        result = measure(bench, options, form)
        name = f"{options.shape} x {result['layers']} {form} {options.density}"
        report.setdefault("results", {})[name] = result
        lines += show(result)
    bench.close()
    save(options.out, report)
    head = [
        "shape",
        "format",
        "plan",
        "ms/token",
        "bytes",
        "of streaming",
        "speed-up",
        "bytes allow",
    ]
    print(table(head, lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
