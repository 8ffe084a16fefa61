"""PrefixStore: KV caches of texts that are over, for the next prompt that begins like one of them.

Held in memory up to a number of bytes; what was used longest ago goes first. Knows nothing of
requests and of how a KV cache is filled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sparity_edge.model.kv_cache import LEAST_SHARED, KVCache, longest_shared


class PrefixStore:
    """Finished KV caches, the latest last.

    Args:
        make: gives an empty KV cache.
        budget: bytes of keys and values that may be kept, room included.
    """

    def __init__(self, make: Callable[[], KVCache], budget: int) -> None:
        self._make = make
        self._budget = budget
        self._kept: list[KVCache] = []
        self._spare: KVCache | None = None
        self.prepare()

    @property
    def nbytes(self) -> int:
        """Bytes that are kept now."""
        return sum(cache.nbytes for cache in self._kept)

    def prepare(self) -> None:
        """Make an empty KV cache for whoever comes next, so that they need not wait for it."""
        if self._spare is None:
            self._spare = self._make()
            self._spare.touch()

    def _empty(self) -> KVCache:
        spare, self._spare = self._spare, None
        return self._make() if spare is None else spare

    def begin(self, ids: Sequence[int], busy: Iterable[KVCache] = ()) -> KVCache:
        """A KV cache that holds the longest beginning of `ids` that is at hand.

        Args:
            ids: of a prompt; the last one is never taken over, for its logits are wanted.
            busy: KV caches of sequences under way, which may be copied from.

        Returns:
            The caller's own; one that is kept is given up where a text goes on at its end.
        """
        found = longest_shared([*self._kept, *busy], ids)
        if found is None:
            return self._empty()
        best, most = found
        if best in self._kept and most == len(best):  # goes on where that prompt ended
            self._kept.remove(best)
            return best
        if best in self._kept:  # used again: the last to go
            self._kept.remove(best)
            self._kept.append(best)
        cache = self._empty()
        cache.copy(best, most)
        return cache

    def keep(self, cache: KVCache) -> None:
        """Take a KV cache over from a sequence that is over.

        Args:
            cache: not used by anybody else from now on; dropped at once where it is very short.
                What was decoded behind its prompt is not kept: as part of a prompt it is read in
                chunks and gets other bits.
        """
        cache.trim(cache.as_prompt)
        if len(cache) < LEAST_SHARED:
            return
        # What begins another text that is kept adds nothing.
        self._kept = [each for each in self._kept if not _begins(each, cache)]
        self._kept.append(cache)
        while self.nbytes > self._budget:
            del self._kept[0]


def _begins(part: KVCache, whole: KVCache) -> bool:
    return len(part) <= len(whole) and whole.ids[: len(part)] == part.ids
