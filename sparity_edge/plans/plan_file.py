"""The plans that a packed folder carries: listed, read, added and removed.

Each family is a file `plan-NAME.safetensors` (its content is plan_bytes.py's concern) which the
manifest lists and which names the model it was made for. What is wrong with a plan fails whoever
asks for it, and never a model that is used without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sparity_edge.config.model_config import ModelConfig
from sparity_edge.config.rope_scaling import RopeScaling
from sparity_edge.errors import FormatError, OptionError
from sparity_edge.packed.folder import PackedFolder, PackedModel, Vector
from sparity_edge.packed.layout import Layout
from sparity_edge.packed.manifest import (
    LOCK_FILE,
    MANIFEST,
    encode_manifest,
    listed_files,
    read_manifest,
)
from sparity_edge.packed.shards import PLAN_FILE, damaged, shown
from sparity_edge.plans.plan import NEURONS, PlanFamily, linear_name
from sparity_edge.plans.plan_bytes import PlanFile, check_sizes, content, in_single_precision
from sparity_edge.system.atomic import one_sentence, replace_file

Opened = PackedFolder | PackedModel
# Fields of a configuration that came after the first plans, for steps that few models have.
OPTIONAL_STEPS = (
    "norms", "qk_norm", "layers_without_rope", "activation", "scales", "rotation", "lora",
    "rotary_dim", "rope_in_windows",
)  # fmt: skip
LATER_IN_ROPE = (  # of fields of `RopeScaling`, those that plans may be older than
    "attention_factor", "beta_fast", "beta_slow", "truncate", "query_beta", "short_factor",
    "long_factor",
)  # fmt: skip
LOCK_SECONDS = 600  # a plan of some hundred MB on a slow disk takes a minute


def plan_names(folder: Path) -> list[str]:
    """Names of the plans that the manifest lists, be they damaged.

    Raises:
        FormatError: the folder has no valid manifest.
    """
    try:
        listed = listed_files(folder)
    except OSError as error:
        raise damaged(folder, f"cannot be read ({error.strerror or error})") from error
    return sorted(match[1] for name in listed if (match := PLAN_FILE.fullmatch(name)))


def read_plan(model: Opened, name: str) -> PlanFamily:
    """Read a plan family that a model's packed folder carries and check that it fits the model.

    Args:
        model: the opened folder, or what was read of it.
        name: a name of `plan_names`.

    Raises:
        OptionError: the folder carries no such plan.
        FormatError: the plan is damaged, or is for another model.
    """
    _demand_listed(model.path, name)
    path = model.path / _file_name(name)
    file = PlanFile(path)
    if file.fields["name"] != name:
        raise damaged(path, f"holds a plan named {shown(file.fields['name'])}")
    if file.fields["model"] != fingerprint(model):
        raise _for_another_model(path)
    return file.read(model.config)


def add_plan(model: Opened, family: PlanFamily) -> None:
    """Write a plan family into a model's packed folder, in the place of one of that name.

    The file gets its name first and the manifest lists it next. A run that is killed in between
    leaves the manifest as it was: a new plan is not listed yet, and a former one is replaced
    already, of which only `verify` complains.

    Raises:
        OptionError: the name is none of a plan.
        FormatError: the plan is for another model, or cannot be written.
    """
    folder = model.path
    path = folder / _file_name(family.name)
    if family.model != fingerprint(model):
        raise _for_another_model(path)
    family = in_single_precision(family)
    check_sizes(path, family, model.config)
    digest, size = hashlib.sha256(), 0

    def parts() -> Iterator[bytes | memoryview]:
        nonlocal size
        for part in content(family):
            digest.update(part)
            size += len(part)
            yield part

    with one_sentence(folder), _alone(folder):
        replace_file(path, parts())
        entry = {"size": size, "sha256": digest.hexdigest()}
        _edit_list(folder, lambda files: files.update({path.name: entry}))


def remove_plan(folder: Path, name: str) -> None:
    """Remove a plan, be it damaged, from a packed folder.

    Raises:
        OptionError: the folder carries no such plan.
        FormatError: the folder has no valid manifest, or cannot be written.
    """
    _demand_listed(folder, name)
    path = folder / _file_name(name)
    with one_sentence(folder), _alone(folder):
        _edit_list(folder, lambda files: files.pop(path.name, None))
        path.unlink(missing_ok=True)


def can_carry(folder: PackedFolder, family: PlanFamily) -> bool:
    """Whether a folder stores what a plan skips so that it can be skipped."""
    stored = folder.layouts

    def skippable(layer: int, piece: str) -> bool:
        if piece == NEURONS:
            return f"model.layers.{layer}.mlp.up_down" in stored
        found = stored.get(linear_name(layer, piece))
        return isinstance(found, Layout) and found.orientation == "input"

    layers = range(folder.config.num_hidden_layers)
    return all(skippable(layer, piece) for layer in layers for piece in family.tables)


def fingerprint(model: Opened) -> str:
    """SHA-256, in hex, of the architecture and all vectors (norms and biases).

    These are the same in every layout and number format of a model; no matrix is read.

    Raises:
        FormatError: a file cannot be read.
    """
    if isinstance(model, PackedFolder):
        return _digest(model.config, _vectors(model))
    vectors = {
        name: tensor for name, tensor in model.tensors.items() if isinstance(tensor, np.ndarray)
    }
    return _digest(model.config, vectors)


def _vectors(folder: PackedFolder) -> dict[str, Vector]:
    vectors = {}
    for name, stored in folder.tensors.items():
        if isinstance(stored.spec, tuple):
            try:
                vectors[name] = np.fromfile(
                    stored.shard, np.dtype("<f4"), stored.spec[0], offset=stored.offset
                )
            except OSError as error:
                raise damaged(stored.shard, f"cannot be read ({error.strerror})") from error
    return vectors


def _digest(config: ModelConfig, vectors: Mapping[str, Vector]) -> str:
    fields = asdict(config)
    # How far it can count and where it stops are no part of what is computed.
    for key in ("max_position_embeddings", "bos_token_id", "eos_token_ids"):
        del fields[key]
    # Optional steps are named where there are any, so that plans made before a step existed stay.
    for key in OPTIONAL_STEPS:
        if getattr(config, key) == getattr(ModelConfig, key):
            del fields[key]
    scaling = fields["rope_scaling"] or {}
    for key in LATER_IN_ROPE:
        if key in scaling and scaling[key] == getattr(RopeScaling, key):
            del scaling[key]
    digest = hashlib.sha256(json.dumps(_canonical(fields), sort_keys=True).encode())
    for name in sorted(vectors):
        digest.update(f"{name}\0".encode())
        digest.update(np.ascontiguousarray(vectors[name], dtype="<f4").data)
    return digest.hexdigest()


def _canonical(value: Any) -> Any:
    """JSON in which numbers are rounded as GGUF rounds them."""
    if isinstance(value, float):
        return float(np.float32(value)).hex()
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    return [_canonical(item) for item in value] if isinstance(value, list | tuple) else value


def _for_another_model(path: Path) -> FormatError:
    return FormatError(
        f"{path}: this plan is for another model; calibrate this one to make a plan for it."
    )


def _file_name(name: str) -> str:
    file_name = f"plan-{name}.safetensors"
    if not PLAN_FILE.fullmatch(file_name):
        raise OptionError(
            f"plan {shown(name)} has no valid name; use 1 to 40 of a-z, 0-9 and hyphens."
        )
    return file_name


def _demand_listed(folder: Path, name: str) -> None:
    names = plan_names(folder)
    if name not in names:
        others = f"it carries {', '.join(names)}" if names else "sparity-edge calibrate makes one"
        raise OptionError(f"{folder} carries no plan {shown(name)}; {others}.")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from changing the plans of a folder at the same time.

    Raises:
        FormatError: one of them takes very long.
    """
    import filelock

    try:
        with filelock.FileLock(folder / LOCK_FILE, timeout=LOCK_SECONDS):
            yield
    except filelock.Timeout:
        raise FormatError(
            f"{folder} has been changed by another process for {LOCK_SECONDS} s; try again later."
        ) from None


def _edit_list(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = read_manifest(folder)
    change(manifest["files"])
    replace_file(folder / MANIFEST, [encode_manifest(manifest)])
