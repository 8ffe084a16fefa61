"""llama.cpp's side of the ladder: one model in its number formats, and their predictions.

The files are made by llama.cpp itself (llama_model_quantize) from one F32 or F16 file of the model
and stay in the cache. Where rows are no multiple of 256 numbers, the K formats fall back on others:
`contents` says what a file really holds. Knows nothing of our own formats.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from shared.child import LlamaCpp
from shared.common import say
from shared.models import FILE
from shared.names import PEER

from sparity_edge import Generator
from sparity_edge.plans.setting import DENSE, Setting

BATCH = 512  # tokens of a window that are read at once
LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_1", "Q4_0", "Q3_K_M", "Q2_K")
EMBEDDING, HEAD = "token_embd.weight", "output.weight"


def ladder_files(
    peer: LlamaCpp,
    source: Path,
    own: str,
    kinds: Sequence[str],
    base: str,
    threads: int,
    folder: Path,
) -> dict[str, Path]:
    """A file of each kind, made where there is none yet.

    Args:
        peer: the process that quantises.
        source: the GGUF file of the model.
        own: its kind, which it stands for itself.
        kinds: such as Q4_0; F32 and F16 as well.
        base: the kind that all others are made from, F32 or F16; FILE: the file itself.
        threads: that quantise.
        folder: that they stay in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, middle = {own: source}, source
    if base != FILE:
        middle = files[base] = made(peer, source, source.stem, base, folder, threads)
    for kind in kinds:
        if kind not in files:
            files[kind] = made(peer, middle, source.stem, kind, folder, threads)
    return {kind: files[kind] for kind in kinds}


def made(peer: LlamaCpp, source: Path, stem: str, kind: str, folder: Path, threads: int) -> Path:
    """A file of a kind in a folder, such as model-as-Q4_0.gguf; made where there is none yet.

    Args:
        peer: the process that quantises.
        source: what it is made from.
        stem: the beginning of its name.
        kind: such as Q4_0.
        folder: that it lies in.
        threads: that quantise.
    """
    path = folder / f"{stem}-as-{kind}.gguf"
    if not path.exists():
        say(f"llama.cpp makes {kind} of {source.name}")
        partial = path.with_suffix(".partial")
        peer("quantize", source=str(source), out=str(partial), kind=kind, threads=threads)
        partial.replace(path)
    return path


def contents(path: Path) -> tuple[dict[str, int], int]:
    """(bytes by number format, bytes that decoding a token reads) of a GGUF file's tensors."""
    from gguf import GGUFReader

    tensors = {each.name: each for each in GGUFReader(path).tensors}
    by_format: Counter[str] = Counter()
    for each in tensors.values():
        by_format[each.tensor_type.name] += int(each.n_bytes)
    unread = int(tensors[EMBEDDING].n_bytes) if HEAD in tensors else 0
    return dict(by_format.most_common()), by_format.total() - unread


class PeerSide:
    """One file of llama.cpp: a side of one row.

    Args:
        peer: the process.
        kind: of the file, which names the row.
        path: of the file.
        file_numbers: whether it is the file that all others were made from.
        threads: how many compute.
    """

    def __init__(
        self, peer: LlamaCpp, kind: str, path: Path, file_numbers: bool, threads: int
    ) -> None:
        self.rows = {kind: kind}
        self.about: dict[str, Any] = {}
        self._peer, self._kind, self._path = peer, kind, path
        self._file_numbers, self._threads = file_numbers, threads

    def close(self) -> None:
        """Free the model."""
        self._peer("close", name=self._kind)

    def quality(
        self,
        names: Collection[str],  # noqa: ARG002 - it has only one
        measure: Callable[..., list[Any]],
    ) -> dict[str, dict[str, Any]]:
        """KL and perplexity of its row."""
        reference: Generator = measure.keywords["reference"]  # type: ignore[attr-defined]
        self._load(reference.max_context)
        with tempfile.TemporaryDirectory() as folder:
            model = PeerModel(self._peer, self._kind, reference, Path(folder) / "logits")
            (result,) = measure(model, settings=[DENSE])
        self.close()
        formats, nbytes = contents(self._path)
        row = {
            "side": PEER,
            "bytes_a_token": nbytes,
            "formats": formats,
            "file_numbers": self._file_numbers,
            **result.to_dict(),
        }
        return {self._kind: row}

    def cases(self, ids: list[int], depth: int) -> dict[str, Callable[[], float]]:
        """A function that gives the seconds of a token behind `depth` others."""
        self._load(depth + 2 * len(ids))
        self._peer("fill", name=self._kind, depth=depth)

        def sample() -> float:
            answer = self._peer("decode", name=self._kind, tokens=ids, depth=depth)
            return float(answer["seconds"]) / len(ids)

        return {self._kind: sample}

    def active(self) -> dict[str, float]:
        """It reads every weight."""
        return {self._kind: 1.0}

    def _load(self, positions: int) -> None:
        self.about = self._peer(
            "load",
            name=self._kind,
            path=str(self._path),
            threads=self._threads,
            positions=positions,
            batch=BATCH,
        )


class PeerModel:
    """A model of llama.cpp in the place of a Generator, for `divergences`: dense, no plans.

    Args:
        peer: the process, in which `name` is loaded.
        name: of the model there.
        ours: whose tokens and context are used.
        scratch: a file that logits pass through; overwritten.
    """

    active_weight_fraction = 1.0

    def __init__(self, peer: LlamaCpp, name: str, ours: Any, scratch: Path) -> None:
        self._peer, self._name, self._scratch = peer, name, scratch
        self.config, self.tokenizer = ours.config, ours.tokenizer
        self.max_context = ours.max_context

    def apply(self, setting: Setting) -> None:
        """Follow a setting; llama.cpp reads everything."""
        assert setting.dense

    def logits(self, ids: Sequence[int]) -> Iterator[Any]:
        """Logits (tokens, vocab_size) of every position, in one part."""
        answer = self._peer(
            "logits", name=self._name, tokens=list(ids), batch=BATCH, out=str(self._scratch)
        )
        yield np.fromfile(self._scratch, np.float32).reshape(answer["shape"])
