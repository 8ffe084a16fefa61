"""Checkpoint: what a calibration has found so far, on disk, so that an interrupted one goes on.

A calibration writes a file for each of its stages every few seconds, in a folder named after all
that its result depends on; the folder goes when the calibration is through. What cannot be written
or is damaged is computed again: a checkpoint saves time and nothing else. Knows no stage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.calibration.histograms import Array
from sparity_edge.system.atomic import replace_file
from sparity_edge.system.folders import calibrations_root
from sparity_edge.system.leftovers import held, is_locked
from sparity_edge.system.version import own_version

Arrays = Mapping[str, Array]
SECONDS = 2.0  # between two files of one stage
SHARE = 20  # and that many times what writing the last one took


class Checkpoint:
    """Stages of one calibration by name.

    Args:
        folder: where they are kept; None: nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._next = 0.0  # when the next file is due

    @property
    def begun(self) -> bool:
        """Whether a former calibration left something behind."""
        return self._folder is not None and any(self._folder.glob("*.safetensors"))

    def load(self, stage: str) -> dict[str, Array] | None:
        """The arrays that a stage left last; None where it left none."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if self._folder is None:
            return None
        try:
            return dict(load((self._folder / f"{stage}.safetensors").read_bytes()))
        except (OSError, ValueError, KeyError, SafetensorError, MemoryError):
            return None

    def offer(self, stage: str, arrays: Callable[[], Arrays], *, last: bool = False) -> None:
        """Keep what a stage has found, if the last time is long enough ago; best effort.

        Args:
            stage: its name.
            arrays: gives what `load` is to find.
            last: keep it in any case: the stage is through.
        """
        if self._folder is None or (time.monotonic() < self._next and not last):
            return
        from safetensors.numpy import save

        begun = time.monotonic()
        content = save({name: np.asarray(each, order="C") for name, each in arrays().items()})
        with contextlib.suppress(OSError):
            replace_file(self._folder / f"{stage}.safetensors", [content])
        ended = time.monotonic()
        self._next = ended + max(SECONDS, SHARE * (ended - begun))


NOWHERE = Checkpoint()


@contextlib.contextmanager
def checkpoint(*depends_on: Any) -> Iterator[Checkpoint]:
    """The checkpoint of a calibration, which is removed at the end, if that is reached.

    Where the folder cannot be written, or another process is at the same calibration, nothing is
    kept.

    Args:
        depends_on: what the result depends on besides the code, ready for JSON.
    """
    parts = [own_version(), _code(), *depends_on]
    folder = calibrations_root() / hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_locked(folder):
            raise BlockingIOError
        folder.touch()  # its age is that of the last attempt
    except OSError:
        yield Checkpoint()
        return
    with held(folder):
        yield Checkpoint(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _code() -> str:
    """What changes with the source of anything that calibrates."""
    content = hashlib.sha256()
    above = Path(__file__).resolve().parent.parent
    for room in ("calibration", "allocate", "methods"):
        for path in sorted((above / room).glob("*.py")):
            content.update(path.read_bytes())
    return content.hexdigest()
