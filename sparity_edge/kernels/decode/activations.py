"""Activations as 16-bit integers for byte dot products: digits, scales and sums.

Thirty-two numbers share a scale, so that an outlier costs only its neighbours precision: the error
is 1.5e-5 of the largest of the thirty-two. A block of 512 numbers is 512 high digits, then 512 low
ones; in the tail a unit of 64 is 64 and 64. Both are in the order in which the weights of the
format come out of memory.
"""

from __future__ import annotations

from sparity_edge.kernels.decode.attention import ATTENTION, combine_head
from sparity_edge.kernels.decode.dot_arguments import BLOCK_GROUPS, X_BLOCK
from sparity_edge.kernels.decode.elementwise import RMSNORM, SILU_MUL, gate_numbers, normalise
from sparity_edge.kernels.decode.kquant_dots import split_for_kquants
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.block_dots import store_block_digits
from sparity_edge.kernels.simd.byte_dots import store_digits, store_digits_by_fours
from sparity_edge.kernels.simd.memory import load, load_f32, load_i64, store_f32
from sparity_edge.kernels.simd.vectors import add, largest, maximum, mul, splat, sub, total
from sparity_edge.kernels.words import Words

MOST = 127 * 256  # so that the high digit fits into a signed byte
BLOCK = 512  # numbers in one chunk, and in a block of weights

# Orders of digits: in the tail of int8 and int4 rows; of K-quants, for which SCALES is the place of
# all floats that go with them; and of formats whose last block has fewer groups, but no tail.
IN_A_ROW, BY_FOURS, FOR_KQUANTS, BY_BLOCKS = range(4)
ORDERS = {
    "int4": BY_FOURS, "int4k": FOR_KQUANTS, "int6k": FOR_KQUANTS, "int5": BY_BLOCKS,
    "int5k": BY_BLOCKS, "iq4": BY_BLOCKS, "iq4k": BY_BLOCKS, "int3k": FOR_KQUANTS,
    "int2k": FOR_KQUANTS,
}  # fmt: skip
SPLIT = Words("x size order digits scales sums")
# Of kernels that split what they have just computed: the argument block of that operation follows.
RMSNORM_SPLIT = SPLIT.plus(before=RMSNORM)
SILU_MUL_SPLIT = SPLIT.plus(before=SILU_MUL)
COMBINE_SPLIT = SPLIT.plus(before=ATTENTION)


@device
def split_numbers(arguments: int, start: int, stop: int) -> None:
    """Numbers start..stop-1 of X, whole groups of 32 of them."""
    x, digits = load_i64(arguments + SPLIT.x), load_i64(arguments + SPLIT.digits)
    order = load_i64(arguments + SPLIT.order)
    blocks = load_i64(arguments + SPLIT.size) // BLOCK * BLOCK
    for i in range(start, min(stop, load_i64(arguments + SPLIT.size)), 32):
        if order == FOR_KQUANTS:
            groups = load_i64(arguments + SPLIT.size) // 32
            floats = load_i64(arguments + SPLIT.scales)
            split_for_kquants(x, i // 32, groups, digits, floats)
            continue
        v, w = load(x + 4 * i), load(x + 4 * i + 64)
        sizes = maximum(maximum(v, sub(splat(0.0), v)), maximum(w, sub(splat(0.0), w)))
        most = largest(sizes)
        # NaN is lost in the comparisons; 0 * x brings it back.
        broken = total(mul(add(v, w), splat(0.0)))
        scale = most / MOST + broken
        inverse = splat(MOST / most) if most > 0 else splat(0.0)
        place = digits + i // 64 * 128
        if i < blocks or order == BY_BLOCKS:
            place = digits + i // BLOCK * X_BLOCK + i // 32 % BLOCK_GROUPS * 4
            first = store_block_digits(place, mul(v, inverse))
            second = store_block_digits(place + 256, mul(w, inverse))
        elif order == BY_FOURS:  # four numbers of one group and four of the next, interleaved
            first = store_digits_by_fours(place + i % 64 // 8, mul(v, inverse))
            second = store_digits_by_fours(place + i % 64 // 8 + 32, mul(w, inverse))
        else:
            first = store_digits(place + i % 64, mul(v, inverse))
            second = store_digits(place + i % 64 + 16, mul(w, inverse))
        store_f32(load_i64(arguments + SPLIT.scales) + i // 8, scale)
        # A whole number: the offset that it is multiplied with has to cancel to the last bit.
        store_f32(load_i64(arguments + SPLIT.sums) + i // 8, total(add(first, second)))


@Kernel(SPLIT)
def split_activations(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """BLOCK numbers of X; SIZE is a multiple of 32. Zeros follow X, and DIGITS to a whole unit."""
    split_numbers(arguments, chunk * BLOCK, (chunk + 1) * BLOCK)


# Kernels that split what they have just computed (operator fusion): one barrier less.


@Kernel(RMSNORM_SPLIT)
def rmsnorm_split(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """`rmsnorm` of one row, BLOCK numbers of it; every chunk takes the mean for itself."""
    start, before = chunk * BLOCK, arguments + RMSNORM_SPLIT.before
    x, weight = load_i64(before + RMSNORM.x), load_i64(before + RMSNORM.weight)
    size, epsilon = load_i64(before + RMSNORM.size), load_f32(before + RMSNORM.epsilon)
    out, accumulate = load_i64(before + RMSNORM.out), load_i64(before + RMSNORM.accumulate)
    normalise(x, weight, out, size, epsilon, accumulate, start, start + BLOCK)
    split_numbers(arguments, start, start + BLOCK)


@Kernel(SILU_MUL_SPLIT)
def silu_mul_split(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """`silu_mul` of one row, BLOCK numbers of it."""
    start, before = chunk * BLOCK, arguments + SILU_MUL_SPLIT.before
    gate, up = load_i64(before + SILU_MUL.gate), load_i64(before + SILU_MUL.up)
    stop = min(start + BLOCK, load_i64(before + SILU_MUL.width))
    gate_numbers(gate, up, load_i64(before + SILU_MUL.out), start, stop)
    split_numbers(arguments, start, start + BLOCK)


@Kernel(COMBINE_SPLIT)
def attention_combine_split(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """`attention_combine` of head `chunk`, whose size is a multiple of 32."""
    before = arguments + COMBINE_SPLIT.before
    combine_head(before, chunk)
    head_dim = load_i64(before + ATTENTION.head_dim)
    split_numbers(arguments, chunk * head_dim, (chunk + 1) * head_dim)
