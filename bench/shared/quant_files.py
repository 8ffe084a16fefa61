"""One file of a model in each common quantisation, and what measures it without keeping its pack.

llama.cpp's own quantiser makes the files, numbers that are quantised already once more: good for
speed, not for quality. Knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from shared.child import LlamaCpp
from shared.ladder_peer import made

from sparity_edge.system.folders import CACHE_VARIABLE

KINDS = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0", "IQ4_XS", "IQ4_NL", "Q3_K_M", "Q2_K"
)  # fmt: skip


class QuantFile(NamedTuple):
    """A file, and what it is of."""

    model: str
    kind: str
    path: Path


def quant_files(
    models: Iterable[tuple[str, Path]],
    kinds: Sequence[str],
    folder: Path,
    python: str,
    threads: int,
) -> list[QuantFile]:
    """A file of each kind of each model, made where there is none yet.

    Args:
        models: names and GGUF files.
        kinds: of `KINDS`.
        folder: that they stay in.
        python: that has llama-cpp-python.
        threads: that quantise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    peer = LlamaCpp(python)
    found = [
        QuantFile(name, kind, made(peer, path, path.stem, kind, folder, threads))
        for name, path in models
        for kind in kinds
    ]
    peer.close()
    return found


@contextlib.contextmanager
def passing_packs(folder: Path) -> Iterator[None]:
    """Packs that are made meanwhile lie in a folder of their own, which is removed again."""
    former = os.environ.get(CACHE_VARIABLE)
    with tempfile.TemporaryDirectory(dir=folder) as packs:
        os.environ[CACHE_VARIABLE] = packs
        try:
            yield
        finally:
            del os.environ[CACHE_VARIABLE]
            if former is not None:
                os.environ[CACHE_VARIABLE] = former
