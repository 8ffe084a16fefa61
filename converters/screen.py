"""The screen of an LM head: made of the weights and of hidden states over a little text.

Basis: with C = E[h h^T] of what the head reads and G = W^T W / V of its rows, the eigenvectors Q
and eigenvalues s^2 of C^1/2 G C^1/2 give T_h = s^1/2 Q^T C^-1/2 and T_w = C^1/2 Q s^-1/2, so that
(W T_w)(T_h h) = W h, and coordinate i adds s_i^2 to the mean square of a logit: the first half of
them holds nearly all. The screen is those of W T_w as int4, and those of T_h as int8. Balanced
truncation, as in Moore (1981), of a product in place of a system.

Errors: of a row, the root mean square over the same states of what its score lacks: coordinates
that are left out, and the rounding of the others.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from converters.numbers.lane_bytes import lane_values, pack_lanes, quantized_lanes
from converters.numbers.layout_bytes import pack_matrix, unpack_matrix
from converters.numbers.quantize import Quantized, quantize
from converters.screen_place import head_name
from converters.screen_states import hidden_states, text_windows
from sparity_edge.arrays import Doubles, Floats, aligned_zeros, round_up
from sparity_edge.kernels.screen import error_bytes
from sparity_edge.model.applied_plan import layer_bytes
from sparity_edge.model.model import Model
from sparity_edge.model.screened_head import HeadScreen
from sparity_edge.packed.folder import PackedFolder, PackedModel
from sparity_edge.packed.lane_rows import GROUP, TOGETHER, LaneLayout, LaneRows
from sparity_edge.packed.layout import BY_THEMSELVES, Layout, PackedMatrix
from sparity_edge.progress import Progress, silent
from sparity_edge.text.tokenizer import Tokenizer

LABEL = "screen"  # of its progress
SHARE = 0.01  # of the mean variance of a hidden state, added to all of them
ROWS = 4096  # of the head, unpacked at a time, in whole blocks
PART, PARTS = 256, 64  # rows in a place, and places, that stand for all rows in their mean square
LEAST_ROWS = 8192  # of fewer there is little to choose
# What decoding has to save for a screen to be used, of the bytes of all layers and the head; and
# what it reads of the head exactly, about 1 to 6 % of it (bench/head/screen.py).
LEAST_SAVED, EXACT = 0.03, 0.05


def layouts(head: Layout) -> tuple[Layout, LaneLayout]:
    """How the projection and the rows of the screen of a head are stored."""
    vocab_size, hidden = head.shape
    coordinates = round_up(hidden // 2, GROUP)
    return (
        Layout("int8", "output", (coordinates, hidden), 32),
        LaneLayout(vocab_size, coordinates),
    )


def pays(model: PackedFolder | PackedModel) -> bool:
    """Whether decoding reads clearly less with a screen."""
    head = model.layouts[head_name(model)]
    assert isinstance(head, Layout)
    # No kernel reads single rows of formats that stand by themselves.
    if head.dtype in BY_THEMSELVES or head.shape[0] < LEAST_ROWS or head.shape[1] < 2 * GROUP:
        return False
    read = sum(each.nbytes for each in layouts(head)) + EXACT * head.nbytes
    return head.nbytes - read >= LEAST_SAVED * (layer_bytes(model) + head.nbytes)


def make_screen(model: Model, tokenizer: Tokenizer, progress: Progress = silent) -> HeadScreen:
    """The screen of a model's head.

    Args:
        model: reads some text; its KV cache is emptied.
        tokenizer: the model's.
        progress: told of passes over text and of rows of the head.

    Raises:
        OptionError: this Python came without its help texts.
    """
    head = model.packed.tensors[head_name(model.packed)]
    assert isinstance(head, PackedMatrix)
    vocab_size = head.layout.shape[0]
    spans = [(start, min(start + ROWS, vocab_size)) for start in range(0, vocab_size, ROWS)]
    steps = itertools.count(1)
    windows = text_windows(model, tokenizer)
    total = len(windows) + len(spans)

    def told() -> None:
        progress(LABEL, next(steps), total)

    states = hidden_states(model, windows, told)
    to_states, to_rows = basis(states, _gram(head))
    projection, coarse = layouts(head.layout)
    made = _Rows(head, to_rows, np.square(states @ to_states.T).mean(axis=0), coarse)
    with ThreadPoolExecutor(model.threads) as pool:
        for _ in pool.map(made.add, spans):
            told()
    projected = quantize(to_states[: coarse.inputs], "int8", projection.group)
    return HeadScreen(
        PackedMatrix(projection, pack_matrix(projected, projection)),
        LaneRows(coarse, made.data),
        error_bytes(made.errors),
    )


class _Rows:
    """Rows of a screen, made a span after the other.

    Args:
        head: the whole matrix.
        to_rows: T_w (hidden, hidden).
        squares: (hidden,), the mean square of every coordinate of hidden states.
        layout: of the rows of the screen.
    """

    def __init__(
        self, head: PackedMatrix, to_rows: Floats, squares: Floats, layout: LaneLayout
    ) -> None:
        self.data, self.errors = aligned_zeros(layout.nbytes), np.zeros(layout.outputs)
        self._head, self._to_rows, self._squares, self._layout = head, to_rows, squares, layout

    def add(self, span: tuple[int, int]) -> None:
        """Make the rows of a span, which begins with a block."""
        layout = self._layout
        exact = _rows(self._head, span) @ self._to_rows
        numbers, scales = quantized_lanes(exact[:, : layout.inputs])
        packed = pack_lanes(numbers, scales, layout)
        start = span[0] // TOGETHER * layout.block_bytes
        self.data[start : start + len(packed)] = packed
        exact[:, : layout.inputs] -= lane_values(numbers, scales)
        self.errors[slice(*span)] = np.sqrt(np.square(exact) @ self._squares)


def _gram(head: PackedMatrix) -> Doubles:
    """The mean of w w^T over rows of the head, (hidden, hidden)."""
    vocab_size, hidden = head.layout.shape
    total = np.zeros((hidden, hidden))
    starts = np.unique(np.linspace(0, max(0, vocab_size - PART), PARTS).astype(int))
    for start in starts:
        some = _rows(head, (start, min(start + PART, vocab_size)))
        total += some.T @ some
    return total / (len(starts) * min(PART, vocab_size))


def basis(states: Floats, gram: Doubles) -> tuple[Floats, Floats]:
    """T_h (hidden, hidden) and T_w (hidden, hidden): coordinates in the order of what they add.

    Args:
        states: (tokens, hidden), what the head reads.
        gram: (hidden, hidden), the mean of w w^T over its rows.
    """
    hidden = states.shape[1]
    second = (states.T @ states).astype(np.float64) / len(states)
    second += SHARE * np.trace(second) / hidden * np.eye(hidden)
    variances, directions = np.linalg.eigh(second)
    root = directions * np.sqrt(variances) @ directions.T
    inverse = directions / np.sqrt(variances) @ directions.T
    squares, turn = np.linalg.eigh(root @ gram @ root)
    order = np.argsort(-squares)
    squares, turn = squares[order], turn[:, order]
    balance = np.maximum(squares, 1e-12 * squares[0]) ** 0.25
    return (
        (balance[:, None] * turn.T @ inverse).astype(np.float32),
        (root @ turn / balance).astype(np.float32),
    )


def _rows(head: PackedMatrix, span: tuple[int, int]) -> Floats:
    """Rows of the head as float32."""
    some = unpack_matrix(head.data, head.layout, *span)
    return some.dequantize() if isinstance(some, Quantized) else some
