"""Products of integers are the same integers whatever instructions the CPU has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir
from numba import njit
from numba.core import types

from sparity_edge.kernels.simd import integer_dots
from sparity_edge.kernels.simd.cpu import chosen, features
from sparity_edge.kernels.simd.ir import BYTES, I64, INTEGERS, define, load_from, store_to

MOST = 127 * 256  # of an activation
# Of instructions for bytes and for words; nothing is what any CPU can do.
WAYS = [("avx512vnni", ""), ("avxvnni", ""), ("", "avx512vnni"), ("", "avxvnni")]
WAYS += [("", "avx512bw"), ("", "avx2"), ("", "")]


def emit_products(builder: Any, weights: Any, x: Any, halves: Any, out: Any) -> None:
    """Sums by fours of 64 bytes at weights times 64 int32 at x; `halves` has room for 128 bytes."""
    for index in range(4):
        four = load_from(builder, x, INTEGERS, 64 * index)
        for start, half in zip((0, 64), integer_dots.halves_of(builder, four)):
            store_to(builder, half, halves, start + 16 * index)
    number = load_from(builder, weights, BYTES)
    first, second = (load_from(builder, halves, BYTES, start) for start in (0, 64))
    sums = integer_dots.dot_first(builder, ir.Constant(INTEGERS, [0] * 16), number, first)
    sums = integer_dots.dot_second(builder, integer_dots.carry(builder, sums), number, second)
    store_to(builder, sums, out)


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: "-".join(way))
def multiply(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`emit_products`, compiled for one way that this CPU knows."""
    byte, word = request.param
    if not features().issuperset({byte, word} - {""}):
        pytest.skip(f"no {byte or word} here")
    intrinsic = define(types.none, *[types.int64] * 4)(emit_products)

    @njit
    def run(weights: int, x: int, halves: int, out: int) -> None:
        intrinsic(weights, x, halves, out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integer_dots, "byte_dot", lambda: byte)
        patch.setattr(integer_dots, "word_dot", lambda: word)
        run.compile((types.int64,) * 4)
    return run


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([0, 1, 15, 16, 127, 128, 240, 254, 255]), min_size=64, max_size=64),
    st.lists(st.integers(-MOST, MOST), min_size=64, max_size=64),
)
def test_products_are_exact(
    multiply: Callable[..., None], weights: list[int], x: list[int]
) -> None:
    assert_exact(multiply, np.array(weights, np.uint8), np.array(x, np.int32))


@pytest.mark.parametrize("value", [MOST, -MOST, -128, 128, 127, -129, 0])
def test_extremes_do_not_saturate(multiply: Callable[..., None], value: int) -> None:
    assert_exact(multiply, np.full(64, 255, np.uint8), np.full(64, value, np.int32))


def assert_exact(multiply: Callable[..., None], weights: Any, x: Any) -> None:
    halves, out = np.empty(128, np.uint8), np.empty(16, np.int32)
    multiply(*(array.ctypes.data for array in (weights, x, halves, out)))
    np.testing.assert_array_equal(out, (weights * x).reshape(16, 4).sum(axis=1))


def test_arm_multiplies_bytes_in_one_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arm_assembly("i8mm", monkeypatch).count("usdot") == 8  # of 16 bytes: two digits of 64


def test_arm_without_i8mm_widens(monkeypatch: pytest.MonkeyPatch) -> None:
    text = arm_assembly("", monkeypatch)
    assert "usdot" not in text
    assert "mul" in text  # smull, or mla where LLVM is old


def arm_assembly(feature: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """`emit_products` as LLVM compiles it for Arm with such a feature."""
    try:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple("aarch64-unknown-linux-gnu")
    except RuntimeError:
        pytest.skip("this llvmlite compiles for no other processor")
    monkeypatch.setattr(integer_dots, "byte_dot", lambda: feature)
    monkeypatch.setattr(integer_dots, "word_dot", lambda: "")
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 4), "multiply")
    builder = ir.IRBuilder(function.append_basic_block())
    emit_products(builder, *function.args)
    builder.ret_void()
    compiled = llvm.parse_assembly(str(module))
    machine = target.create_target_machine(opt=3, features=f"+neon{feature and ',+' + feature}")
    result: str = machine.emit_assembly(compiled)
    return result


def test_what_was_chosen_is_told() -> None:
    told = chosen()
    for feature, name in (
        ("avx512vnni", "AVX-512 VNNI"),
        ("avxvnni", "AVX-VNNI"),
        ("avx2", "AVX2"),
    ):
        if feature in features():
            assert name in told["products_of_words"]
            return
    assert "compiler" in told["products_of_bytes"]
