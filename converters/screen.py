"""The screen of an LM head: made of the weights and of hidden states over a little text.

Basis: with C = E[h h^T] of what the head reads and G = W^T W / V of its rows, the eigenvectors Q
and eigenvalues s^2 of C^1/2 G C^1/2 give T_h = s^1/2 Q^T C^-1/2 and T_w = C^1/2 Q s^-1/2, so that
(W T_w)(T_h h) = W h, and coordinate i adds s_i^2 to the mean square of a logit: the first half of
them holds nearly all. The screen is those of W T_w as int4, and those of T_h as int8. Balanced
truncation, as in Moore (1981), of a product in place of a system.

Text: half of it the help of Python, half the same with every other 32 tokens drawn at random: for
SmolLM2 on WikiText-2 errors were a tenth smaller than with the help alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from converters.calibration.windows import token_windows
from converters.numbers.lane_bytes import pack_lanes
from converters.numbers.layout_bytes import pack_matrix, unpack_matrix
from converters.numbers.quantize import Quantized, quantize
from sparity_edge.arrays import Doubles, Floats, aligned_zeros, round_up
from sparity_edge.model.applied_plan import layer_bytes
from sparity_edge.model.layer_run import LayerRun, Windows
from sparity_edge.model.model import Model
from sparity_edge.model.screened_head import HeadScreen
from sparity_edge.packed.folder import PackedFolder, PackedModel
from sparity_edge.packed.lane_rows import GROUP, TOGETHER, LaneLayout, LaneRows
from sparity_edge.packed.layout import BY_THEMSELVES, Layout, PackedMatrix
from sparity_edge.progress import Progress, silent
from sparity_edge.text.default_text import default_documents
from sparity_edge.text.tokenizer import Tokenizer

LABEL = "screen"  # of its progress
TOKENS, WINDOW = 4096, 256
RANDOM = 32  # tokens that are drawn, then as many of the text
SHARE = 0.01  # of the mean variance of a hidden state, added to all of them
ROWS = 4096  # of the head, unpacked at a time, in whole blocks
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


def head_name(model: PackedFolder | PackedModel) -> str:
    """The matrix that gives logits: the embedding, where the two are one."""
    return "model.embed_tokens.weight" if model.config.tie_word_embeddings else "lm_head.weight"


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
        progress: told of layers and of rows of the head.

    Raises:
        OptionError: this Python came without its help texts.
    """
    head = model.packed.tensors[head_name(model.packed)]
    assert isinstance(head, PackedMatrix)
    vocab_size, hidden = head.layout.shape
    spans = [(start, min(start + ROWS, vocab_size)) for start in range(0, vocab_size, ROWS)]
    steps = itertools.count(1)
    total = model.config.num_hidden_layers + 2 * len(spans)

    def told() -> None:
        progress(LABEL, next(steps), total)

    states = _states(model, _windows(model, tokenizer), told)
    gram = np.zeros((hidden, hidden))
    for span in spans:
        rows = _rows(head, span)
        gram += rows.T @ rows
        told()
    to_states, to_rows = basis(states, gram / vocab_size)
    projection, coarse = layouts(head.layout)
    data, kept = aligned_zeros(coarse.nbytes), coarse.inputs

    def pack(span: tuple[int, int]) -> None:
        packed = pack_lanes(_rows(head, span) @ to_rows[:, :kept], coarse)
        start = span[0] // TOGETHER * coarse.block_bytes
        data[start : start + len(packed)] = packed

    with ThreadPoolExecutor(model.threads) as pool:
        for _ in pool.map(pack, spans):
            told()
    projected = quantize(to_states[:kept], "int8", projection.group)
    return HeadScreen(
        PackedMatrix(projection, pack_matrix(projected, projection)), LaneRows(coarse, data)
    )


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


def _windows(model: Model, tokenizer: Tokenizer) -> Windows:
    """Windows of text, the second half of them with random tokens in it."""
    config = model.config
    window = min(WINDOW, config.max_position_embeddings)
    text = token_windows(tokenizer, config.eos_token_ids, default_documents(), 1 << 62, window)
    text = text[np.linspace(0, len(text) - 1, TOKENS // window).astype(int)]
    drawn = np.random.default_rng(0).integers(0, config.vocab_size, text.shape)
    mixed = (np.arange(window) // RANDOM % 2 == 1) & (np.arange(len(text)) % 2 == 1)[:, None]
    windows: Windows = np.where(mixed, drawn, text)
    return windows


def _states(model: Model, windows: Windows, told: Callable[[], None]) -> Floats:
    """What the head reads after each token of the windows, (tokens, hidden)."""
    config = model.config
    with LayerRun(model, windows) as run:
        for layer in range(run.layers):
            run.run(layer, lambda _: None)
            told()
        residual = run.residual.reshape(-1, config.hidden_size)
    mean = (residual**2).mean(axis=1, keepdims=True)
    states: Floats = residual / np.sqrt(mean + config.rms_norm_eps) * model.decoder.norm
    return states


def _rows(head: PackedMatrix, span: tuple[int, int]) -> Floats:
    """Rows of the head as float32."""
    rows = unpack_matrix(head.data, head.layout, *span)
    return rows.dequantize() if isinstance(rows, Quantized) else rows
