"""Quantised safetensors: the matrices that other programs' quantised checkpoints hold.

`open_quantised` finds the method in config.json, takes the tensors of every quantised linear
together, and gives a `Matrix` for each, which says in which of our formats its values are exact. A
new method is a module here with a class, and a line in `_FORMS`. Which modules are quantised the
tensors tell, not lists of exceptions in config.json. Knows nothing of layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.numbers.quantize import ZERO_POINTS
from converters.sources.quantised import forms
from converters.sources.quantised.forms import Form
from converters.sources.quantised.grid import Matrix
from converters.sources.quantised.parts import Held, Parts
from converters.sources.quantised.stored import Stored, stored_tensors
from sparity_edge.config.values import show
from sparity_edge.errors import SourceError

# Keys of config.json under which methods stand; the first is MLX's, which copies it to the second.
KEYS = ("quantization", "quantization_config")
# quant_method -> the form of its settings.
_FORMS: dict[str, Callable[[Mapping[str, Any], str], Form]] = {
    "awq": forms.awq,
    "gptq": forms.gptq,
    "mlx": forms.mlx,
    "fp8": forms.fp8,
    "fbgemm_fp8": forms.fbgemm,
    "compressed-tensors": forms.compressed_tensors,
    "bitsandbytes": forms.bitsandbytes,
}
# Of a quantised KV cache, which is not used here.
_OF_CACHE = (".k_scale", ".v_scale", ".q_scale")


@dataclass(frozen=True)
class Opened:
    """What a quantised checkpoint holds."""

    matrices: dict[str, Matrix]  # by the name of the float tensor in whose place they stand
    parts: frozenset[str]  # names of the tensors that they are made of
    notes: tuple[str, ...]  # one sentence for each thing that is read otherwise than it is stored


def open_quantised(config: Mapping[str, Any], shards: Sequence[Path], label: str) -> Opened:
    """The quantised matrices of a folder; none where config.json names no method.

    Args:
        config: the content of config.json.
        shards: safetensors files whose headers were checked.
        label: what errors call the model.

    Raises:
        SourceError: the method is not supported, or parts of a matrix do not fit each other.
    """
    if all(config.get(key) is None for key in KEYS):
        return Opened({}, frozenset(), ())
    form = _form(config, label)
    stored, held = stored_tensors(shards), Held()
    matrices: dict[str, Matrix] = {}
    used: set[str] = set()
    for module, parts in _modules(stored, form):
        matrices[f"{module}.weight"] = form.make(Parts(module, parts, held, label, form.name))
        used.update(part.name for part in parts.values())
    used.update(name for name in stored if name.endswith(_OF_CACHE))
    if not matrices:
        raise SourceError(
            f"{label}: config.json says that the weights are quantised by {form.name}, but no "
            f"tensor is named {form.key}; fetch the complete folder."
        )
    return Opened(matrices, frozenset(used), tuple(_notes(form.name, matrices)))


def _form(config: Mapping[str, Any], label: str) -> Form:
    block = next(config[key] for key in KEYS if config.get(key) is not None)
    method = block.get("quant_method") if isinstance(block, dict) else block
    if method is None and isinstance(block, dict) and {"bits", "group_size"} <= block.keys():
        method = "mlx"  # which does not name itself
    make = _FORMS.get(method) if isinstance(method, str) else None
    if make is None or not isinstance(block, dict):
        raise SourceError(
            f"{label}: config.json has quantization_config with quant_method={show(method)}, which "
            f"is not supported; use a checkpoint of {', '.join(_FORMS)}, the unquantised one or a "
            "GGUF file."
        )
    return make(block, label)


def _modules(stored: Mapping[str, Stored], form: Form) -> list[tuple[str, dict[str, Stored]]]:
    """Names of quantised modules, and the tensors of each by part."""
    modules = [
        name.removesuffix(f".{form.key}") for name in stored if name.endswith(f".{form.key}")
    ]
    return [
        (
            module,
            {part: stored[name] for part in form.parts if (name := f"{module}.{part}") in stored},
        )
        for module in modules
    ]


def _notes(method: str, matrices: Mapping[str, Matrix]) -> list[str]:
    notes = []
    for why in sorted({matrix.why_floats for matrix in matrices.values()} - {""}):
        names = [name for name, matrix in matrices.items() if matrix.why_floats == why]
        notes.append(
            f"{len(names)} matrices of {method}, such as {names[0]}, are read as floats and "
            f"rounded anew: {why}."
        )
    if any(matrix.native and matrix.native[0] == ZERO_POINTS for matrix in matrices.values()):
        notes.append(
            f"{method} has zero points that no 4-bit format here holds exactly: numbers are packed "
            "as int5, or as int8 by inputs, without a change; --dtype int4 keeps four bits and "
            "rounds scale times zero point to float16."
        )
    return notes
