"""Where the screen of an LM head stands in the cache: a file named after the model and its head.

Knows nothing of what is in it. What removes packs finds here which screens go with them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from sparity_edge.errors import SparityError
from sparity_edge.model.opening import open_folder
from sparity_edge.packed.folder import PackedFolder, PackedModel
from sparity_edge.packed.layout import Layout
from sparity_edge.plans.plan_file import fingerprint
from sparity_edge.system.folders import cache_root

VERSION = 2  # raised whenever screens are made otherwise


def screens() -> Path:
    """The folder of all screens."""
    return cache_root() / "screens"


def head_name(model: PackedFolder | PackedModel) -> str:
    """The matrix that gives logits: the embedding, where the two are one."""
    return "model.embed_tokens.weight" if model.config.tie_word_embeddings else "lm_head.weight"


def path_of(packed: PackedFolder | PackedModel) -> Path:
    """The file of the screen of a model's head, be it there or not."""
    layout = packed.layouts[head_name(packed)]
    assert isinstance(layout, Layout)
    key = json.dumps([fingerprint(packed), layout.to_dict(), VERSION])
    return screens() / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


def screens_of(packs: Iterable[Path]) -> set[Path]:
    """The files of the screens of packed folders; damaged ones have none."""
    found = set()
    for pack in packs:
        try:
            found.add(path_of(open_folder(pack)))
        except (SparityError, OSError):
            continue
    return found
