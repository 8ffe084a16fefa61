"""Prompts cut into passes: which tokens decoding's kernels read depends on their place alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sparity_edge.model.prefixes.parts import CHUNK, FEW, cuts, usable


def read_as_few(read: int, length: int, origin: int = 0) -> set[int]:
    return {
        at
        for start, end in cuts(read, length, origin)
        if start >= origin and end - start <= FEW
        for at in range(start, end)
    }


@given(st.integers(1, 3 * CHUNK), st.integers(0, 3 * CHUNK), st.sampled_from([0, 4]))
def test_cuts_cover_what_is_left_in_passes_that_are_not_too_long(
    length: int, read: int, origin: int
) -> None:
    found = list(cuts(min(read, length), length, origin))
    assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]
    assert [each for start, end in found for each in range(start, end)] == list(range(read, length))
    assert all(end - start <= CHUNK for start, end in found)


@given(st.integers(1, 3 * CHUNK), st.integers(0, 3 * CHUNK))
def test_what_is_taken_over_changes_no_kernel(length: int, shared: int) -> None:
    read = usable(min(shared, length - 1), length)
    assert 0 <= read <= shared
    whole = {at for at in read_as_few(0, length) if at >= read}
    assert read_as_few(read, length) == whole
    # None of the rest was read by decoding's kernels where it stands in what is taken over.
    assert not any(at < read for at in read_as_few(0, length))
    assert min(shared, length - 1) - read <= 2 * FEW + 1
