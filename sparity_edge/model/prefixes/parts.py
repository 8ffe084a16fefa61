"""Parts: how a prompt is cut into passes, so that its bits do not depend on what is kept of it.

Passes over more than FEW tokens give each of them the same bits, whatever their number; passes over
FEW or less give the bits of decoding. Which of the two reads a token follows from its place in the
whole prompt alone, be its beginning taken over from another text or not. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator

CHUNK = 256  # tokens of a prompt read at once: enough to use each unpacked weight many times
# Up to so many tokens of one sequence are read as a batch decodes, which costs less than a prompt's
# products until there are 16 to 24 (AMD EPYC, Zen 5, and as znver3; bench/latency.py).
FEW = 16


def next_part(read: int, length: int, origin: int = 0) -> int:
    """How many tokens the next pass over a prompt reads.

    Args:
        read: tokens of it that are in the KV cache.
        length: all of its tokens, more than `read`.
        origin: where the first chunk begins.
    """
    end = _chunked(length, origin)
    left = end - read
    if left <= 0:
        return length - read
    count = min(left, CHUNK)
    # What is left for the next pass is never as little as decoding reads.
    spare = FEW + 1 - (left - count)
    return count - spare if 0 < left - count <= FEW < count - spare else count


def cuts(read: int, length: int, origin: int = 0) -> Iterator[tuple[int, int]]:
    """Where each pass over the rest of a prompt begins and ends.

    Args:
        read: tokens of it that are in the KV cache.
        length: all of its tokens.
        origin: where the first chunk begins; what is before it is read by itself.
    """
    while read < length:
        end = min(origin, length) if read < origin else read + next_part(read, length, origin)
        yield read, end
        read = end


def usable(shared: int, length: int) -> int:
    """How many tokens of a prompt may be taken over so that the rest is read as without them.

    Args:
        shared: its first tokens that are at hand as prompts are read in chunks.
        length: all of its tokens.
    """
    end = _chunked(length, 0)
    if shared >= end and end < length:
        return end
    return shared if end - shared > FEW else max(0, end - FEW - 1)


def _chunked(length: int, origin: int) -> int:
    """Where the part of a prompt ends that is read in passes over more than FEW tokens."""
    few = max(0, length - origin) % CHUNK
    return length - few if few <= FEW else length
