"""Opening a packed folder: its configuration parsed once, its tensors compared with it.

Whatever is opened here carries its `ModelConfig` from then on; nobody below parses it again. Knows
no kernels and runs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sparity_edge.config.model_config import ModelConfig
from sparity_edge.model.families import read_config
from sparity_edge.packed.bundle import DOWN, UP, BundleLayout, bundle_of
from sparity_edge.packed.folder import (
    PackedFolder,
    PackedModel,
    read_folder,
    read_weights,
    verify_files,
)
from sparity_edge.packed.layout import Layout
from sparity_edge.packed.shards import (
    FORMAT_VERSION,
    LORA_VERSION,
    ROTATED_VERSION,
    Stored,
    TensorSpec,
    damaged,
    shown,
)
from sparity_edge.progress import Progress, silent


def open_folder(path: str | os.PathLike[str]) -> PackedFolder:
    """Check a packed folder and find its tensors, without reading a weight.

    Raises:
        FormatError: something is missing, damaged, inconsistent or of another version.
        ConfigError: config.json asks for what the decoder does not run.
    """
    found = read_folder(path)
    config = read_config(found.config_json, found.generation_config)
    if found.manifest["version"] != version_of(config):
        what = "whether it is rotated and has LoRA adapters"
        raise damaged(found.path, f"disagrees with its config.json about {what}")
    _match(found.path, found.tensors, config)
    return PackedFolder(**vars(found), config=config)


def open_packed(path: str | os.PathLike[str]) -> PackedModel:
    """Check a packed folder and read it into memory.

    Raises:
        FormatError: something is missing, damaged, inconsistent or of another version.
        ConfigError: config.json asks for what the decoder does not run.
    """
    return read_weights(open_folder(path))


def version_of(config: ModelConfig) -> int:
    """The version of the manifest of a model: readers that do not know what it has refuse it."""
    if config.lora is not None:
        return LORA_VERSION
    return FORMAT_VERSION if config.rotation is None else ROTATED_VERSION


def verify_packed(path: str | os.PathLike[str], progress: Progress = silent) -> dict[str, int]:
    """Compare every file of a packed folder with the SHA-256 in its manifest.

    Returns:
        Bytes of each file.

    Raises:
        FormatError, ConfigError: the first fault found, structure before content.
    """
    return verify_files(open_folder(path), progress)


def _match(folder: Path, tensors: Mapping[str, Stored], config: ModelConfig) -> None:
    """Compare what is stored with what config.json says the model consists of."""
    expected = config.tensor_shapes()
    surplus = set(tensors)
    for name, shape in expected.items():
        bundle = bundle_of(name)
        where = bundle if bundle is not None and bundle in tensors else name
        if where not in tensors:
            raise damaged(folder, f"lacks the tensor {name}")
        actual = _shape(tensors[where].spec, name)
        if actual != shape:
            raise damaged(
                folder, f"holds {name} as {list(actual)} where config.json says {list(shape)}"
            )
        if where == bundle and not config.bundles:
            raise damaged(folder, f"bundles {name}, which has a bias or a LoRA adapter")
        surplus.discard(where)
    if surplus:
        raise damaged(
            folder, f"holds {shown(min(surplus))}, for which its config.json has no place"
        )


def _shape(spec: TensorSpec, name: str) -> tuple[int, ...]:
    """The shape of the tensor `name`, stored by itself or in a bundle; () for a wrong kind."""
    if isinstance(spec, BundleLayout):
        halves = {UP: spec.up, DOWN: spec.down}
        return next((half.shape for end, half in halves.items() if name.endswith(end)), ())
    return spec.shape if isinstance(spec, Layout) else spec
