"""Folders of LoRA adapters as peft writes them: adapter_config.json and adapter_model.safetensors.

An adapter adds (alpha / r) B A to the weights of a linear. What it asks for besides that (DoRA,
biases, whole modules, embeddings) is refused by its name, and shapes are compared with the model's.
Knows nothing of how weights are stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from converters.adapters.names import Adapter
from converters.adapters.patterns import Numbers
from converters.sources.rows import in_pairs
from converters.sources.shard_index import read_object
from converters.sources.source import hash_file
from sparity_edge.arrays import Floats
from sparity_edge.config.model_config import LAYER_LINEARS, ModelConfig
from sparity_edge.config.values import show
from sparity_edge.errors import SourceError, library_words

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 4096
MAX_BYTES = 4 << 30  # of the weights, which are held in memory; rank 256 of a 70B model has 3 GB
DTYPES = ("F32", "F16", "BF16")
# Keys that change what the model computes, beyond low-rank products beside its linears.
REFUSED = (
    "use_dora", "modules_to_save", "lora_bias", "trainable_token_indices", "target_parameters",
    "layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config",
    "kasa_config", "monteclora_config",
)  # fmt: skip
_TENSOR = re.compile(
    r"(?P<module>(?:[a-z_]+\.){0,6}layers\.(?P<layer>\d{1,4})\."
    r"(?P<linear>[a-z_]{1,20}\.[a-z_]{1,20}))\.lora_(?P<half>[AB])\.weight",
    re.ASCII,
)


@dataclass(frozen=True)
class LowRank:
    """What is added to the weights of one linear: b @ a."""

    a: Floats  # (rank, inputs)
    b: Floats  # (outputs, rank), times all scales


def read_adapter(
    adapter: Adapter, config: ModelConfig, stored: Mapping[str, tuple[str, ...]]
) -> dict[str, LowRank]:
    """What an adapter adds, by the names of weights: "model.layers.0.self_attn.q_proj.weight".

    Args:
        adapter: the folder and the factor.
        config: of the model that it is put to.
        stored: modules of its checkpoint that hold the rows of several, as in `Family`.

    Raises:
        SourceError: a file is missing or damaged, asks for what is not supported, or was made for
            another model.
    """
    folder, settings = adapter.folder, _settings(adapter.folder)
    scaling = _Scaling(folder, settings, adapter.scale)
    modules: dict[_Module, dict[str, Floats]] = {}
    for name, values in _tensors(folder).items():
        found = _TENSOR.fullmatch(name)
        if found is None:
            raise _refused(folder, f"tensor {ascii(name)[:100]}")
        path = found["module"].removeprefix("base_model.model.")
        module = _Module(int(found["layer"]), found["linear"], path)
        modules.setdefault(module, {})[found["half"]] = values
    result: dict[str, LowRank] = {}
    for module, halves in sorted(modules.items()):
        if set(halves) != {"A", "B"}:
            raise SourceError(
                f"{folder}: {module.path} lacks lora_A or lora_B; fetch the adapter again."
            )
        parts = stored.get(module.linear, (module.linear,))
        if module.layer >= config.num_hidden_layers or not set(parts) <= set(LAYER_LINEARS):
            raise SourceError(
                f"{folder}: the model has no {module.path}; the adapter is another model's."
            )
        result |= _product(folder, config, module, parts, halves, scaling)
    if not result:
        raise SourceError(f"{folder}: {WEIGHTS} holds no LoRA weights; fetch the adapter again.")
    return result


def identity(adapter: Adapter) -> str:
    """SHA-256, in hex, of the files of an adapter, with its scale.

    Args:
        adapter: whose files are read.
    """
    hashes = [hash_file(path).hex() for path in files_of(adapter)]
    return ":".join([*hashes, repr(adapter.scale)])


def files_of(adapter: Adapter) -> tuple[Path, ...]:
    """The files that an adapter is read from.

    Args:
        adapter: whose files are looked for.
    """
    return adapter.folder / CONFIG, adapter.folder / WEIGHTS


class _Module(NamedTuple):
    """A linear of the model that has an adapter."""

    layer: int
    linear: str  # as in LAYER_LINEARS, or stored for several of them
    path: str  # as peft calls it: model.layers.0.self_attn.q_proj


def _settings(folder: Path) -> Mapping[str, Any]:
    if not (folder / CONFIG).is_file():
        raise SourceError(
            f"{folder}: there is no {CONFIG}, so it is no LoRA adapter as peft writes it; "
            "check the spelling."
        )
    settings = read_object(folder / CONFIG)
    if settings.get("peft_type") != "LORA":
        raise _refused(folder, f"peft_type={show(settings.get('peft_type'))}")
    for key in REFUSED:
        if settings.get(key):
            called = {"use_dora": " (DoRA)"}.get(key, "")
            raise _refused(folder, f"{key}={show(settings[key])}{called}")
    if settings.get("bias", "none") != "none":
        raise _refused(folder, f"bias={show(settings['bias'])}")
    return settings


def _refused(folder: Path, what: str) -> SourceError:
    return SourceError(
        f"{folder}: {what} is not supported; merge the adapter with peft (merge_and_unload) and "
        "use the model that it saves."
    )


def _tensors(folder: Path) -> dict[str, Floats]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = "its weights are pickled, which is unsafe to read" if pickled else "fetch it again"
        raise SourceError(f"{folder}: there is no {WEIGHTS}; {why}.")
    if path.stat().st_size > MAX_BYTES:
        raise SourceError(f"{path}: larger than {MAX_BYTES >> 30} GiB, so it is no LoRA adapter.")
    try:
        with safe_open(path, framework="np") as file:
            found = {}
            for name in file.keys():  # noqa: SIM118 - no mapping
                piece = file.get_slice(name)
                if piece.get_dtype() not in DTYPES:
                    raise SourceError(
                        f"{path}: {ascii(name)[:100]} has dtype {piece.get_dtype()}, which is not "
                        f"supported; use an adapter in {', '.join(DTYPES)}."
                    )
                found[name] = np.asarray(file.get_tensor(name), dtype=np.float32)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise SourceError(
            f"{path}: not a valid safetensors file ({library_words(error)}); fetch it again."
        ) from error
    return found


def _product(
    folder: Path,
    config: ModelConfig,
    module: _Module,
    parts: Sequence[str],
    halves: Mapping[str, Floats],
    scaling: _Scaling,
) -> dict[str, LowRank]:
    """What is added to one linear, or to each of those that are stored as one."""
    shapes = [config.linear_shape(part) for part in parts]
    outputs, inputs = sum(shape[0] for shape in shapes), shapes[0][1]
    a, b = halves["A"], halves["B"]
    rank = len(a) if a.ndim == 2 else 0
    if not 0 < rank <= MAX_RANK or a.shape != (rank, inputs) or b.shape != (outputs, rank):
        raise SourceError(
            f"{folder}: {module.path} has lora_A {list(a.shape)} and lora_B {list(b.shape)}, "
            f"which does not fit the model's ({outputs}, {inputs}); the adapter is another model's."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise SourceError(f"{folder}: {module.path} holds NaN or infinity; fetch it again.")
    scaled = b * np.float32(scaling.of(module.path, rank))
    ends = np.cumsum([shape[0] for shape in shapes])[:-1]
    return {
        f"model.layers.{module.layer}.{part}.weight": LowRank(a, in_pairs(rows, part, config))
        for part, rows in zip(parts, np.split(scaled, ends), strict=True)
    }


class _Scaling:
    """What B A of a module is multiplied by: alpha / r, or alpha / sqrt(r) with rsLoRA."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], scale: float) -> None:
        self._folder, self._scale = folder, scale
        where = str(folder / CONFIG)
        self._rank = Numbers(settings, "r", "rank_pattern", where)
        self._alpha = Numbers(settings, "lora_alpha", "alpha_pattern", where)
        self._root = settings.get("use_rslora") is True
        targets = settings.get("target_modules")
        self._targets = targets if isinstance(targets, list) else None

    def of(self, module: str, rank: int) -> float:
        """The factor, for a module whose matrices have that rank.

        Raises:
            SourceError: the configuration says otherwise.
        """
        declared = self._rank.of(module)
        if declared != rank:
            raise self._disagrees(f"{module} has rank {rank}, where {CONFIG} says {declared:g}")
        ends = [] if self._targets is None else [f".{each}" for each in self._targets]
        if self._targets is not None and not f".{module}".endswith(tuple(ends)):
            raise self._disagrees(f"{module} is none of target_modules in {CONFIG}")
        return self._scale * self._alpha.of(module) / (math.sqrt(rank) if self._root else rank)

    def _disagrees(self, how: str) -> SourceError:
        return SourceError(f"{self._folder}: {how}; fetch the adapter again.")
