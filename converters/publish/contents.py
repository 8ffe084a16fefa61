"""What of a packed folder is published: the files of its format, by name, and a model card.

Nothing else that lies in the folder goes along, and no link is followed out of it. The manifest
goes up without paths of this machine and with the licence. Knows nothing of the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from converters.publish.card import evidence, model_card, readable_plans
from converters.sources.card import README, licence_in
from converters.sources.remote.hub_name import parse_hub_name
from sparity_edge.errors import FormatError, OptionError
from sparity_edge.model.opening import open_folder
from sparity_edge.packed.folder import PackedFolder, verify_files
from sparity_edge.packed.manifest import MANIFEST, card_facts, card_in, encode_manifest
from sparity_edge.packed.shards import PLAN_FILE, shown
from sparity_edge.progress import Progress, silent
from sparity_edge.text.tokenizer_files import TOKENIZER_FILES

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors", re.ASCII)
_SMALL = frozenset((MANIFEST, "config.json", "generation_config.json", *TOKENIZER_FILES))


@dataclass(frozen=True)
class Contents:
    """What goes up: files of the folder as they are, and texts that were made."""

    files: Mapping[str, Path]
    texts: Mapping[str, bytes]  # the manifest and the model card
    sizes: Mapping[str, int]  # of all, by name
    unmeasured: Sequence[str] = ()  # plans of which the card has no KL

    @property
    def all(self) -> dict[str, Path | bytes]:
        """Where each is, or what it is, by name."""
        return {**self.files, **self.texts}


def contents_of(
    path: Path, repository: str, licence: str | None = None, progress: Progress = silent
) -> Contents:
    """What of a packed folder is published, every file compared with its checksum.

    Args:
        path: the folder.
        repository: where it will be, `org/name`.
        licence: of the model, by the name that the Hub has for it; None: that of its source.
        progress: told of bytes that were compared.

    Raises:
        OptionError: the licence is not known.
        FormatError: it is no packed folder, is damaged, lists files that are none of the format,
            or holds a link that leads elsewhere.
        ConfigError: config.json asks for what the decoder does not run.
    """
    folder = open_folder(path)
    card = _with_licence(card_in(folder.manifest), licence, path)
    if parse_hub_name(card.get("base_model", "")) is None:
        card.pop("base_model", None)
    files = {name: _own_file(path, name) for name in folder.manifest["files"]}
    sizes = verify_files(folder, progress)
    manifest = {**folder.manifest, "source": shown_source(folder, card), "card": card}
    families = readable_plans(folder)
    card_text = model_card(folder, families, manifest["source"], card, repository)
    texts = {MANIFEST: encode_manifest(manifest), README: card_text.encode()}
    sizes |= {name: len(text) for name, text in texts.items()}
    unmeasured = [each.name for each in families if not evidence(each)]
    return Contents(files, texts, sizes, unmeasured)


def is_own_name(name: str) -> bool:
    """Whether a file of that name, in a folder or a repository, is one of a packed folder."""
    return bool(name in _SMALL or _SHARD.fullmatch(name) or PLAN_FILE.fullmatch(name))


def shown_source(folder: PackedFolder, card: Mapping[str, str]) -> str:
    """What the model was made of, as others may read it: a name of the Hub, or of a file.

    Args:
        folder: the packed folder.
        card: of its source; a source of the Hub is its base model.
    """
    source: Any = folder.manifest.get("source")
    if not isinstance(source, str) or not source.isprintable():
        return "unknown"
    if "base_model" in card and source.startswith(card["base_model"]):
        return source
    return PureWindowsPath(source).name  # which takes both kinds of slashes


def _with_licence(card: Mapping[str, str], licence: str | None, path: Path) -> dict[str, str]:
    if licence is not None:
        named = licence_in({"license": licence})
        if not named:
            raise OptionError("--license names no licence; give its name, as in apache-2.0.")
        rest = {name: text for name, text in card.items() if name == "base_model"}
        return card_facts({**rest, **named})
    if "license" not in card:
        raise OptionError(
            f"{path} does not say under which licence its model is; look at the model's own page, "
            "and give --license NAME, as in --license apache-2.0."
        )
    return dict(card)


def _own_file(folder: Path, name: str) -> Path:
    """The path of a file of the format that lies in the folder itself.

    Raises:
        FormatError: it has another name, or leads elsewhere.
    """
    path = folder / name
    if not is_own_name(name):
        raise FormatError(
            f"{folder}: {MANIFEST} lists {shown(name)}, which is no file of a packed model, so "
            "nothing is sent; convert the model anew."
        )
    if path.is_symlink() and path.resolve().parent != folder.resolve():
        raise FormatError(
            f"{path} is a link that leads out of the folder, so nothing is sent; copy the folder "
            "with its contents (cp -rL) and push the copy."
        )
    return path
