"""Writes docs/kernels.md: a row for every kernel, what to touch for a new one, and the invariants.

Rows are read from `kernels/table.py` and from the kernels themselves. `python docs/make_kernels.py`
writes the page; the tests compare it with `render()`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.table import TABLE, Entry

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "kernels.md"
TESTS = ROOT / "tests" / "kernels"
HEAD = ("kernel", "computes", "argument words", "a chunk", "scratch", "waits", "operation, twin")
HEAD += ("formats", "compiled at", "bench", "tests")
BEGINNING = """# Kernels

Every kernel is `kernel(arguments, chunk, scratch)`: an argument block, the number of the chunk to
compute, and scratch memory of the calling thread. `python docs/make_kernels.py` writes this page
from [table.py](../sparity_edge/kernels/table.py); how a token runs through kernels is in
[how it works](how-it-works.md), the bytes of rows are in [format.md](format.md).

- **argument words**: int64 words, by the names under which they are recorded. Kernels for several
  tokens find a table of argument blocks, whose words stand behind "rows:".
- **waits**: the kernel comes with a barrier of its own even inside `together()`; outside of it
  every operation waits for the one before.
- **operation, twin**: the method of `Operations` that records it; the NumPy twin is the method of
  the same name in `kernels/reference/`.
- **bench**: the kind of `bench/kernels.py` that times it.
- **tests**: files in `tests/kernels/` that call the operation; `test_table.py` calls each.

## Table

"""
END = """
## To add a number format, touch these

1. `sparity_edge/packed/layout.py`: bits, groups, bytes of a row; `docs/format.md`: the picture.
2. `converters/numbers/`: quantising and packing; `tests/packing.py`: random weights of it.
3. `sparity_edge/kernels/matrix.py`: a code for `DTYPE`; `sparity_edge/kernels/reference/`: the
   NumPy reading, which is the oracle of all kernels.
4. `sparity_edge/kernels/simd/`: unpacking and integer dot products of a block, with a drawing of
   the registers.
5. `sparity_edge/kernels/decode/dots.py` and `sparity_edge/kernels/decode/vmm.py`: the product of a
   row and a kernel of its own; `sparity_edge/kernels/decode/activations.py`: the order of digits;
   `sparity_edge/kernels/decode/unpack.py`: rows as floats.
6. `sparity_edge/kernels/prefill/panels.py` and `sparity_edge/kernels/prefill/gemm.py`: panels for
   prompts; `sparity_edge/kernels/batch/tiles.py` and `dots.py` beside it: a few tokens, and two.
7. `sparity_edge/kernels/sparse/axpy_blocks.py` if rows can be input-major (K-quants:
   `kquant_axpy.py` beside it).
8. `sparity_edge/kernels/table.py`: the formats of the rows above; `sparity_edge/choices.py`: its
   name for users.

## To add a number format that is only kept from GGUF files, touch these

Output-major alone, never made from floats, and compiled only for models that have it.

1. `sparity_edge/packed/layout.py`: a name in KEPT_GROUPS or K_QUANT_GROUPS, and in BY_THEMSELVES;
   `docs/format.md`: the picture, and what it becomes where it cannot be kept.
2. `converters/numbers/gguf_blocks.py`: the blocks of the GGUF; a module beside it that moves
   numbers to bytes and back, for `layout_bytes.py` or `kquant_bytes.py`; `converters/pack.py`: what
   it becomes elsewhere, if that is exact.
3. `sparity_edge/kernels/matrix.py`, `sparity_edge/kernels/reference/unpack.py` and ORDERS of
   `sparity_edge/kernels/decode/activations.py`, as above.
4. `sparity_edge/kernels/kept/`: registers, dot products with one token and two, blocks for a few
   tokens, rows as floats and as panels, and a kernel each that hands these to what all formats
   share (`multiply_rows`, `embed_row`, `multiply_two_or_more`, `multiply_words_of`,
   `multiply_floats_of`). Functions that take functions are `inlined`: otherwise Numba keeps no
   machine code of theirs.
5. `sparity_edge/kernels/kept/families.py`: the family, which the table of kernels is made of.
6. FORMS of `tests/kernels/cases.py`, `tests/packing.py`, `bench/shared/cases.py`.

## To add an operation, touch these

1. The kernel, in `sparity_edge/kernels/decode/`, `sparse/`, `prefill/` or `batch/`: a declaration
   of `Words` and `@Kernel(WORDS)`. What several kernels share is declared once and extended with
   `plus`.
2. `sparity_edge/kernels/table.py`: its row. This decides when it is compiled and puts it on this
   page.
3. `sparity_edge/kernels/program/`: a record function in the file of its topic, and a method of
   `Program`.
4. `sparity_edge/kernels/operations.py`: the method with shapes; `sparity_edge/kernels/reference/`:
   the NumPy twin.
5. `tests/kernels/cases.py`: a case, which `test_table.py` runs by formats, sizes and threads.
6. `bench/shared/cases.py` if it reads weights, with its kind in the row of the table.

## Invariants

- **Zeros behind rows.** Activations come from `arrays.rows` and `arrays.padded`: 64-byte aligned,
  followed by zeros up to a multiple of 128 numbers. A kernel reads whole vectors past the end and
  writes zeros there or nothing. Behind the last output of a product nothing is written.
- **Behind a list** sixteen more channel numbers fit, because whole vectors are written.
- **Chunks never depend on the thread count**, nor do parts of a list: they are cut by shapes
  alone, and what a chunk writes depends on its number. Any number of threads gives the same bits.
  `gemm_words` takes fewer panels a chunk with more threads; no sum depends on it.
- **Order of sums.** Parts are added in their order by `add_parts`; blocks of attention in the
  order of positions. A token of a batch gets the bits that it gets alone.
- **Integers are exact.** Activations are 16-bit integers with a scale for 32 of them (128 in
  prompts), right to 1.54e-5 of the largest, or bytes in long prompts with AVX2 alone
  (`sparity_edge/kernels/reference/rounding.py`); sums of integers stay below 2**24 where they
  become float32.
- **NaN and inf propagate.** Comparisons drop a NaN, so quantising adds 0 * x to the scale; a
  selection takes NaN for larger than anything. What is not finite stays with its token. Division
  follows IEEE; no fast-math flags.
- **Alignment.** Rows of weights and headers are 64-byte aligned, those of K-quants to 32 bytes and
  of int5 and iq4 not at all; loads are unaligned all the same.
- **Reading ahead.** Prefetches may run past the end of a matrix. Loads may do so by less than a
  vector: whatever `arrays` makes is followed by 64 bytes that may be read and are never written.
- **Bounds.** With `SPARITY_EDGE_CHECKS=1` in the environment every load and store of a kernel is
  compared with the arrays, matrices and scratch memory that its operation was recorded with, and
  token ids, positions and active lists with their bounds. The first that lies outside is not
  carried out: the run ends in a `BoundsError` that names kernel, operand and both numbers. Checked
  kernels have a cache of their own, are much slower and run one chunk at a time; without the
  switch machine code has no trace of it. `.ci/run` runs all tests both ways.
- **Offsets come from declarations**: of argument blocks from `Words`, of matrices from
  `sparity_edge/kernels/matrix.py`, of packed rows from `sparity_edge/packed/layout.py`. The kernel
  cache is named after all files that machine code takes code or constants from.
"""


def render() -> str:
    """The page."""
    lines = [_row(HEAD), _row(["---"] * len(HEAD))]
    lines += [_row(_cells(entry)) for entry in TABLE]
    return BEGINNING + "\n".join(lines) + "\n" + END


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(entry: Entry) -> list[str]:
    module = entry.kernel.module.removeprefix("sparity_edge.kernels.").replace(".", "/")
    return [
        f"[{entry.kernel.name}](../sparity_edge/kernels/{module}.py)",
        _computes(entry.kernel),
        _words(entry.kernel),
        entry.chunk,
        entry.scratch,
        "yes" if entry.waits else "",
        entry.operation,
        " ".join((*entry.formats, *([f"({entry.orientation})"] if entry.orientation else []))),
        entry.when.value,
        entry.bench,
        _tests(entry.operation),
    ]


def _computes(kernel: Kernel) -> str:
    """The first sentence of its docstring."""
    text = " ".join((kernel.__doc__ or "").split())
    return re.split(r"(?<=[.;])\s", text)[0].rstrip(".;").replace("|", "\\|")


def _words(kernel: Kernel) -> str:
    words = " ".join(kernel.words.names)
    return words if kernel.table is None else f"{words}; rows: {' '.join(kernel.table.names)}"


def _tests(operations: str) -> str:
    """Test files that call one of some operations."""
    calls = re.compile(rf"ops\.({operations.replace(', ', '|')})\(")
    found = [path.name for path in sorted(TESTS.glob("*.py")) if calls.search(path.read_text())]
    return " ".join(name.removeprefix("test_").removesuffix(".py") for name in found)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8", newline="\n")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: {len(TABLE)} kernels\n")
