"""The client of the Hugging Face Hub, as this project uses it: one model's facts, files and folder.

What its exceptions mean is told here, in sentences. Downloads go into the cache that transformers
and llama.cpp use as well. Knows no model format and not which files are wanted.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sparity_edge.errors import SourceError, library_words
from sparity_edge.progress import Progress
from sparity_edge.system.disk import is_full

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

# The Hub answers within a second or is not reachable; waiting longer only delays the fallback.
TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.5
PART = ".incomplete"  # ends the names of contents that are not whole yet
_COMMIT = re.compile(r"[0-9a-f]{40}")
ROOM = "free some space or name another folder in HF_HOME"


def look_up(repository: str, revision: str | None, model: str) -> ModelInfo | None:
    """Commit and files of a model; None where the Hub cannot be reached.

    Raises:
        SourceError: there is no such model or revision, it is gated, or the Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return HfApi().model_info(
            repository, revision=revision, timeout=TIMEOUT_SECONDS, files_metadata=True
        )
    except GatedRepoError as error:
        raise SourceError(
            f"{model}: this model is gated; accept its terms on https://huggingface.co/{repository}"
            " and log in with: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(f"{model}: the model has no revision {revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"{model}: there is no such folder here and no such model on the Hugging Face Hub, or "
            "it is private; check the spelling or log in with: hf auth login"
        ) from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code < 500:
            raise SourceError(f"{model}: the Hub refused ({library_words(error)}).") from error
        return None
    except Exception:  # connection errors of whichever HTTP library; HF_HUB_OFFLINE
        return None


def download(repository: str, revision: str | None, model: str, names: Iterable[str]) -> Path:
    """Bring files of a model to the Hub's cache; the folder that holds them.

    Args:
        repository: `org/name`.
        revision: a branch, tag or commit; None: the main branch.
        model: what the user named, for errors.
        names: paths of the files in the repository.

    Raises:
        SourceError: the download broke off.
    """
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            # By the name of the revision, not by its commit: only then can it be found offline.
            return Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=[_as_pattern(name) for name in names],
                    etag_timeout=TIMEOUT_SECONDS,
                )
            )
    except Exception as error:  # the HTTP library below differs between versions of the Hub client
        remedy = ROOM if is_full(error) else "check the network"
        raise SourceError(
            f"{model}: the download broke off ({library_words(error)}); {remedy} "
            "and start again, what is here already is kept."
        ) from error


def _as_pattern(name: str) -> str:
    """A pattern of fnmatch that a name alone fits."""
    return name.replace("[", "[[]")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars of the Hub client, which would cross ours on the terminal."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def watched(
    repository: str, label: str, there: int, total: int, progress: Progress
) -> Iterator[int]:
    """Report how the cache folder grows: every version of the Hub client tells it differently.

    Args:
        repository: `org/name`.
        label: what the progress is called.
        there: bytes of the wanted files that have been fetched before.
        total: bytes of all wanted files.
        progress: told of the bytes.

    Yields:
        How many bytes are still to come, those of downloads that broke off being there.
    """
    folder = model_folder(repository) / "blobs"
    others = _bytes_in(folder, whole=True) - there

    def done() -> int:
        return max(0, min(_bytes_in(folder) - others, total))

    finished = threading.Event()

    def report() -> None:
        while not finished.wait(POLL_SECONDS):
            progress(label, done(), total)

    thread = threading.Thread(target=report, daemon=True)
    progress(label, done(), total)
    thread.start()
    try:
        yield total - done()
    finally:
        finished.set()
        thread.join()
    progress(label, total, total)


def hub_cache() -> Path:
    """The folder in which the Hub client keeps models."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def model_folder(repository: str) -> Path:
    """Where the Hub client keeps a model."""
    return hub_cache() / f"models--{repository.replace('/', '--')}"


def cached_folder(repository: str, revision: str | None) -> Path | None:
    """The folder of a revision that was fetched; None: none was.

    Args:
        repository: `org/name`.
        revision: a branch, tag or commit; None: the main branch.
    """
    folder, commit = model_folder(repository), revision or "main"
    with contextlib.suppress(OSError, ValueError):
        commit = (folder / "refs" / commit).read_text(encoding="ascii").strip()
    if not _COMMIT.fullmatch(commit):
        return None
    found = folder / "snapshots" / commit
    return found if found.is_dir() else None


def _bytes_in(folder: Path, whole: bool = False) -> int:
    """Bytes of the contents in a folder; with `whole` of those only that were fetched whole."""
    try:
        return sum(
            entry.stat().st_size
            for entry in os.scandir(folder)
            if not (whole and entry.name.endswith(PART))
        )
    except OSError:  # not made yet, or a file was renamed just now
        return 0
