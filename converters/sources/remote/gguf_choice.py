"""Which GGUF file of a repository a name means, as llama.cpp and ollama users type it.

A repository holds one model in many number formats: `org/name:Q4_K_M` names one by its format, in
any case, or by its file. The parts of a split file count as one. Knows names and sizes only, of
files on the Hub as well as of those that were fetched before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from sparity_edge.errors import SourceError
from sparity_edge.system.split_files import part_of, parts_beside, whole_name

DEFAULTS = ("Q4_K_M", "Q8_0")  # what llama.cpp takes where nothing is named, best first
LATEST = "latest"  # what ollama calls the default
MAX_LISTED = 24
# Files that help a model and are none, by what stands in their names; llama.cpp's list.
_HELPERS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_FORMAT = re.compile(
    r"(?<![A-Z0-9])((?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|(?:MX|NV)FP4(?:_\w+)?|BF16|FP?(?:16|32)))"
    r"(?=[-./]|$)",
    re.IGNORECASE,
)
_HOSTILE = re.compile(r"[\x00-\x1f\x7f\\*?]|(?:^|/)\.{0,2}(?:/|$)")


@dataclass(frozen=True)
class GgufModel:
    """One model of a repository: the paths of its file or of its parts in order, and its bytes."""

    files: tuple[str, ...]
    nbytes: int

    @property
    def name(self) -> str:
        """The path of its file, without the number of a part."""
        return whole_name(PurePosixPath(self.files[0])).as_posix()

    @property
    def missing(self) -> tuple[str, ...]:
        """The parts of a split file that are not there."""
        parts = (path.as_posix() for path in parts_beside(PurePosixPath(self.files[0])))
        return tuple(part for part in parts if part not in self.files)

    @property
    def format(self) -> str | None:
        """The number format in its name, in capitals; None: there is none."""
        found = _FORMAT.findall(_stem(self.name))
        return found[-1].upper() if found else None

    @property
    def size(self) -> str:
        """Its size as messages show it."""
        unit, name = (1e9, "GB") if self.nbytes >= 1e8 else (1e6, "MB")
        return f"{self.nbytes / unit:.1f} {name}"


def gguf_models(sizes: Mapping[str, int]) -> list[GgufModel]:
    """The models among the files of a repository, the smallest first.

    Args:
        sizes: bytes of each file, by its path in the repository.
    """
    groups: dict[tuple[str, int], list[str]] = {}
    for name in sorted(filter(_is_model, sizes)):
        path = PurePosixPath(name)
        count = (part_of(path) or (1, 1))[1]
        groups.setdefault((whole_name(path).as_posix(), count), []).append(name)
    models = [GgufModel(tuple(each), sum(map(sizes.__getitem__, each))) for each in groups.values()]
    return sorted(models, key=lambda model: (model.nbytes, model.name))


def choose(models: Sequence[GgufModel], tag: str | None, label: str) -> GgufModel:
    """The model that is meant.

    Args:
        models: those of the repository.
        tag: what stands behind the colon; None: nothing does.
        label: what the user named, for errors.

    Raises:
        SourceError: none is meant, or several are, or parts of it are missing.
    """
    repository = label.partition(":")[0]
    if not models:
        raise SourceError(f"{label}: there is no GGUF file in this repository.")
    found = _named(models, tag) if tag else _default(models)
    if not found:
        told = "is called so" if tag else "goes before the others"
        raise SourceError(
            f"{label}: of its GGUF files none {told}; there are {_listed(models)}; name one, as "
            f"in {repository}:{tag_of(models[0], models)}"
        )
    if len(found) > 1:
        raise SourceError(
            f"{label}: several GGUF files may be meant: {_listed(found)}; name one, as in "
            f"{repository}:{tag_of(found[0], found)}"
        )
    if found[0].missing:
        raise SourceError(
            f"{label}: {', '.join(found[0].missing[:MAX_LISTED])} of this split model is missing; "
            "name another file."
        )
    return found[0]


def remark(chosen: GgufModel, models: Sequence[GgufModel], label: str, tag: str | None) -> str:
    """What was chosen, as a sentence, and how another one is named where nothing was.

    Args:
        chosen: one of `models`.
        models: all GGUF models of the repository.
        label: what the user named.
        tag: that the user gave; None: none.
    """
    what = f"{label}: {chosen.name}, {chosen.size}"
    others = [each for each in models if each is not chosen]
    if tag or not others:
        return what + "."
    return f"{what}, is taken; there are also {_listed(others, models)} (as in {label}:TAG)."


def _named(models: Sequence[GgufModel], tag: str) -> list[GgufModel]:
    """Those that a tag may mean: by path, else by number format, else by a piece of the name."""
    wanted = tag.lower()
    if wanted == LATEST:
        return _default(models)
    piece = re.compile(rf"(?<![a-z0-9]){re.escape(wanted)}(?=[-./]|$)")
    by_path = [each for each in models if wanted in _paths(each)]
    by_format = [each for each in models if (each.format or "").lower() == wanted]
    by_piece = [each for each in models if piece.search(_stem(each.name.lower()))]
    return by_path or by_format or by_piece


def _default(models: Sequence[GgufModel]) -> list[GgufModel]:
    if len(models) == 1:
        return list(models)
    return next((found for each in DEFAULTS if (found := _named(models, each))), [])


def _paths(model: GgufModel) -> set[str]:
    """All that names a model by its path: of any part or of none, with folder and suffix or not."""
    paths = [PurePosixPath(each.lower()) for each in (model.name, *model.files)]
    names = {text for path in paths for text in (path.as_posix(), path.name)}
    return names | {_stem(name) for name in names}


def _stem(name: str) -> str:
    return name[: -len(".gguf")] if name.lower().endswith(".gguf") else name


def _is_model(name: str) -> bool:
    file = name.lower().rpartition("/")[2]
    if not file.endswith(".gguf") or _HOSTILE.search(name):
        return False
    part = part_of(PurePosixPath(name))
    if part is not None and not 1 <= part[0] <= part[1]:
        return False
    return not any(each in file for each in _HELPERS)


def tag_of(model: GgufModel, models: Iterable[GgufModel]) -> str:
    """The shortest tag that names a model and no other: its number format, or its file.

    Args:
        model: one of `models`.
        models: all GGUF models of the repository.
    """
    alike = [each for each in models if each.format == model.format]
    return model.format if model.format and len(alike) == 1 else model.name


def _listed(listed: Sequence[GgufModel], models: Sequence[GgufModel] | None = None) -> str:
    models = models or listed
    shown = [f"{tag_of(each, models)} ({each.size})" for each in listed[:MAX_LISTED]]
    more = len(listed) - MAX_LISTED
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
