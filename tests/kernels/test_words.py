"""Argument blocks by name: offsets, shared words, and what a slip at recording says."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.program.loops import FIRST_ARGUMENT
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.simd.memory import load_i64
from sparity_edge.kernels.words import Words

SHARED = Words("x size")
OWN = SHARED.plus("out")
TAKEN = OWN.plus("more", before=SHARED)


@Kernel(OWN)
def three(arguments: int, chunk: int, scratch: int) -> None:
    """Nothing at all."""


@Kernel(TAKEN, table=OWN)
def several(arguments: int, chunk: int, scratch: int) -> None:
    """Nothing at all."""


@njit
def second_and_inner(arguments: int) -> tuple[int, int]:
    return load_i64(arguments + TAKEN.size), load_i64(arguments + TAKEN.before + SHARED.size)


def test_offsets_follow_each_other() -> None:
    assert (SHARED.x, OWN.x, OWN.out) == (0, 0, 16)
    assert TAKEN.names == ("x", "size", "out", "more", "before_x", "before_size")
    assert (TAKEN.before, TAKEN.before_x, TAKEN.before_size) == (32, 32, 40)
    with pytest.raises(AttributeError, match="xx is no word of x size out"):
        _ = OWN.xx


def test_compiled_code_reads_words_by_name() -> None:
    words = np.arange(100, 106, dtype=np.int64)
    assert second_and_inner(words.ctypes.data) == (101, 105)


@pytest.mark.parametrize("names", ["x x", "x 2", "names", "plus", "chunks", "writes", "stream"])
def test_names_that_cannot_be_told_apart_are_refused(names: str) -> None:
    with pytest.raises(ValueError, match=r"twice|cannot name"):
        Words(names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"x": 1, "size": 2}, r"three: no value for out; the words are: x size out"),
        ({"x": 1, "size": 2, "out": 3, "bias": 4}, "three: no such word as bias"),
        ({"x": 1, "sise": 2, "out": 3}, "no value for size and no such word as sise"),
    ],
)
def test_a_slip_fails_when_it_is_recorded(words: dict[str, int], message: str) -> None:
    recorder = Recorder(1)
    with pytest.raises(TypeError, match=message):
        recorder.record(three, 1, **words)
    assert not recorder.records


def test_records_stand_in_the_order_of_the_declaration() -> None:
    recorder, out = Recorder(1), np.zeros(1, dtype=np.float32)
    recorder.record(three, 4, out=out, size=0.5, x=None)
    row = recorder.records[0].row
    half = int(np.float32(0.5).view(np.int32))
    assert row[FIRST_ARGUMENT:][:4] == [0, half, out.ctypes.data, 0]
    inner = {"x": 5, "size": 6}
    recorder.record(several, 1, x=1, size=2, out=3, more=4, before=inner)
    assert recorder.records[1].row[FIRST_ARGUMENT:][:6] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(TypeError, match="no value for before_size"):
        recorder.record(several, 1, x=1, size=2, out=3, more=4, before={"x": 5})


def test_tables_give_each_token_a_row_of_its_own() -> None:
    recorder, out = Recorder(1), np.zeros((3, 4), dtype=np.float32)
    words = recorder.table(several, 3, {"x": 7, "out": out, "size": 4})
    start = out.ctypes.data
    assert words["table"].tolist() == [[7, 4, start + 16 * token] for token in range(3)]
    assert (words["tokens"], words["table_stride"]) == (3, 24)
    with pytest.raises(TypeError, match="several: no value for out"):
        recorder.table(several, 3, {"x": 7, "size": 4})
