"""DiskStore: beginnings of prompts in files, which nobody reads again, be it after a restart.

Processes share a folder. What was read as a prompt is written behind the back of whoever decodes;
what was used longest ago is removed where the files are more than the bytes allowed. A damaged file
is dropped and said so once. Knows nothing of requests.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sparity_edge.errors import FormatError, SparityError
from sparity_edge.model.kv_cache import LEAST_SHARED, KVCache
from sparity_edge.model.prefixes.blocks import (
    BLOCK,
    SUFFIX,
    Block,
    names_of,
    path_of,
    read_block,
    space_of,
    write_block,
)
from sparity_edge.model.prefixes.parts import usable
from sparity_edge.packed.manifest import content_of
from sparity_edge.system.atomic import one_sentence

LOCK_FILE = ".lock"
SPARE = 0.9  # of the bytes allowed that are left when files are removed
REST = 4  # times as long as a file took, before the next one: others decode meanwhile
MOST_PENDING = 256 << 20  # bytes that wait to be written; what comes then is not kept
CLOSE_SECONDS = 10.0  # that `close` waits for what is still being written

Chain = list[tuple[Path, Block | None]]  # the blocks of a prompt; None: there already


class DiskStore:
    """Beginnings of prompts of one packed model in a folder.

    Args:
        folder: for files of any models; made where it is missing.
        model: the packed folder.
        budget: bytes that all files of the folder may have.
        notify: given one sentence where files cannot be written or are damaged.

    Raises:
        FormatError: the folder cannot be made, or the model has no valid manifest.
    """

    def __init__(
        self, folder: Path, model: Path, budget: int, notify: Callable[[str], None]
    ) -> None:
        self.taken_tokens = 0  # that were read from files in place of being computed
        self.written_bytes = 0
        self._folder, self._budget, self._notify = folder, budget, notify
        self._model = content_of(model)
        self._pending: queue.SimpleQueue[Chain | None] = queue.SimpleQueue()
        self._pending_bytes, self._counting = 0, threading.Lock()
        self._unlooked = budget  # bytes written since files were counted; all of them at first
        self._told, self._hurry = False, threading.Event()
        self._writer: threading.Thread | None = None
        with one_sentence(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def fill(self, cache: KVCache, ids: Sequence[int]) -> int:
        """Take over what a KV cache does not hold yet of the beginning of a prompt.

        Args:
            cache: holds a beginning of it, its keys rotated as this prompt wants it.
            ids: of the prompt; the last of them are left, so that no bit depends on it.

        Returns:
            How many positions the cache holds then that it did not before.
        """
        before, first = len(cache), cache.as_prompt // BLOCK
        paths = [path_of(self._folder, name) for name in names_of(self._space(cache), ids)]
        there = next((n for n in range(first, len(paths)) if not _there(paths[n])), len(paths))
        if usable(there * BLOCK, len(ids)) - before < LEAST_SHARED:
            return 0
        cache.trim(first * BLOCK)
        cache.reserve(there * BLOCK)
        for index in range(first, there):
            block = self._read(paths[index], ids[index * BLOCK :][:BLOCK], cache)
            if block is None:
                there = index
                break
            cache.put(index * BLOCK, block.keys, block.values)
            cache.append(block.ids, as_prompt=True)
        cache.trim(usable(len(cache), len(ids)))
        _touch(paths[:there])
        taken = max(0, len(cache) - before)
        self.taken_tokens += taken
        return taken

    def keep(self, cache: KVCache) -> None:
        """Have what was read as a prompt written, as far as it is not there; returns before it is.

        Args:
            cache: its bytes are copied, so that it may change at once.
        """
        names = names_of(self._space(cache), cache.ids[: cache.as_prompt])
        paths = [path_of(self._folder, name) for name in names]
        # Once one is missing, those behind it mostly are as well.
        first = next((n for n, path in enumerate(paths) if not _there(path)), len(paths))
        if first == len(paths) or self._pending_bytes > MOST_PENDING:
            return
        chain: Chain = [(path, None) for path in paths[:first]]
        for index, path in enumerate(paths[first:], first):
            start, end = index * BLOCK, (index + 1) * BLOCK
            # One by one: memory of that size is at hand, that of all would have to be made.
            block = Block(cache.ids[start:end], *cache.rows(start, end))
            self._count(block.nbytes)
            chain.append((path, block))
        if self._writer is None:
            self._hurry.clear()
            self._writer = threading.Thread(target=self._write, name="prefixes", daemon=True)
            self._writer.start()
        self._pending.put(chain)

    def close(self) -> None:
        """Wait until all is written, for a while; nothing may be kept afterwards."""
        if self._writer is not None:
            self._pending.put(None)
            self._hurry.set()
            self._writer.join(CLOSE_SECONDS)
            self._writer = None

    def _space(self, cache: KVCache) -> str:
        return space_of(self._model, cache)

    def _read(self, path: Path, ids: Sequence[int], cache: KVCache) -> Block | None:
        """A block; None: it is damaged, or somebody removed it just now."""
        try:
            return read_block(path, ids, cache)
        except OSError:
            return None
        except FormatError as error:
            with contextlib.suppress(OSError):
                path.unlink()
            self._tell(error)
            return None

    def _count(self, nbytes: int) -> None:
        with self._counting:
            self._pending_bytes += nbytes

    def _write(self) -> None:
        while (chain := self._pending.get()) is not None:
            try:
                with one_sentence(self._folder):
                    self._write_chain(chain)
                    self._make_room()
            except SparityError as error:
                self._tell(error)
            self._count(-sum(block.nbytes for _, block in chain if block))

    def _write_chain(self, chain: Chain) -> None:
        for path, block in chain:
            if block is not None and not _there(path):
                started = time.perf_counter()
                write_block(path, block)
                self._hurry.wait(REST * (time.perf_counter() - started))
                self.written_bytes += block.nbytes
                self._unlooked += block.nbytes
        _touch([path for path, _ in chain])

    def _make_room(self) -> None:
        """Remove what was used longest ago; others of the folder do so as well."""
        import filelock

        if self._unlooked < self._budget * (1 - SPARE) / 2:
            return
        lock = filelock.FileLock(self._folder / LOCK_FILE, timeout=0)
        with contextlib.suppress(filelock.Timeout), lock:
            files = sorted(_files(self._folder))
            total = sum(size for _, size, _ in files)
            if total > self._budget:
                for _, size, path in files:
                    if total <= self._budget * SPARE:
                        break
                    with contextlib.suppress(OSError):
                        path.unlink()
                        total -= size
            self._unlooked = 0

    def _tell(self, error: SparityError) -> None:
        if not self._told:
            self._told = True
            self._notify(str(error))


def _there(path: Path) -> bool:
    with contextlib.suppress(OSError):  # of a folder that may not be read
        return path.exists()
    return False


def _touch(chain: Sequence[Path]) -> None:
    """Count files as used now, those of a text's end as used before those of its beginning."""
    for path in reversed(chain):
        with contextlib.suppress(OSError):
            os.utime(path)


def _files(folder: Path) -> list[tuple[int, int, Path]]:
    """When each file was used last, its bytes and its place."""
    found = []
    for path in folder.glob(f"*/*{SUFFIX}"):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    return found
