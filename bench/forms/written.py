"""One small checkpoint of every family in each form that models come in, and the floats it means.

Files are written by the helpers of the tests. What GGUF files mean is what the gguf package says;
quantised safetensors are read by ours, which tests/quantised compares with the library of each
format bit for bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import load_file

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path += [str(TESTS), str(TESTS / "shared")]

import gguf_families  # noqa: E402
import gguf_files  # noqa: E402
import quantised_files  # noqa: E402
import tiny  # noqa: E402
import tiny_cases  # noqa: E402

from converters.numbers.quantize import Quantized  # noqa: E402
from converters.sources import open_source  # noqa: E402
from converters.sources.rows import in_pairs  # noqa: E402
from converters.sources.source import Source  # noqa: E402

CASE = "{family}_form"  # how a case is called while it is written
# Sizes that every number type has whole blocks of.
SIZES = {
    "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
KEPT = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_K",
        "Q5_K", "Q6_K")  # fmt: skip
AS_FLOATS = ("F32", "F16", "BF16", "IQ2_XXS", "IQ3_S", "TQ1_0", "MXFP4")
SCALES = (1e-5, 1e-4)  # of random blocks, so that they have weights as real ones have
Floats = Mapping[str, np.ndarray]


class Form(NamedTuple):
    """How a checkpoint is written."""

    name: str
    write: Callable[[Path, str], tuple[Path, Floats]]  # (folder, case) -> what loads, its weights
    kept: bool  # whether its numbers stay as they are; else it is loaded as float32


def families() -> dict[str, tiny_cases.Case]:
    """A case of each `model_type` that has one, in sizes that all number types can have."""
    found: dict[str, tiny_cases.Case] = {}
    for case in tiny.CASES.values():
        config = tiny.config_of(case)
        if config["model_type"] not in found and _plain_rope(config):
            found[config["model_type"]] = _wide(case)
    return found


def forms() -> list[Form]:
    """All forms, in the order of the table."""
    folders = [Form(f"folder {each}", _folder(each), kept=False) for each in tiny.STORAGE]
    files = [Form(f"GGUF {each}", _gguf(each), each in KEPT) for each in (*AS_FLOATS[:3], *KEPT)]
    others = [Form(f"GGUF {each}", _gguf(each), kept=False) for each in AS_FLOATS[3:]]
    packed = [
        Form(f"folder {name}", _quantised(name), form.native is not None)
        for name, form in quantised_files.FORMS.items()
    ]
    return [*folders, *packed, *files, *others]


def named(family: str, case: tiny_cases.Case) -> str:
    """The name under which the tests' helpers find a case from here on."""
    types = {name: tiny.config_of(each)["model_type"] for name, each in tiny.CASES.items()}
    first = next(name for name, each in types.items() if each == family)
    name = CASE.format(family=tiny.family_of(first))
    tiny.CASES[name] = case
    return name


def write_floats(folder: Path, name: str, weights: Floats) -> Path:
    """The checkpoint of a case with other weights, in float32."""
    tiny.build(folder, name)
    tensors = {key: np.ascontiguousarray(each, np.float32) for key, each in weights.items()}
    tiny.write_safetensors(folder / "model.safetensors", tensors)
    return folder


def _wide(case: tiny_cases.Case) -> tiny_cases.Case:
    sizes = dict(SIZES)
    if "head_dim" in case.config:
        sizes["head_dim"] = 64
    if "shared_intermediate_size" in case.config:
        sizes["shared_intermediate_size"] = SIZES["intermediate_size"]
    return replace(case, config={**case.config, **sizes}, shards=1)


def _plain_rope(config: Mapping[str, Any]) -> bool:
    """Whether rope is written out, without factors that belong to one size of heads."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    known = "rope_theta" in config or "rope_theta" in rope
    return known and not any(isinstance(each, list) for each in rope.values())


def _folder(storage: str) -> Callable[[Path, str], tuple[Path, Floats]]:
    def write(folder: Path, name: str) -> tuple[Path, Floats]:
        tiny.CASES[name] = replace(tiny.CASES[name], storage=storage)
        return tiny.build(folder / "checkpoint", name), tiny.make_tensors(tiny.CASES[name])

    return write


def _quantised(form: str) -> Callable[[Path, str], tuple[Path, Floats]]:
    def write(folder: Path, name: str) -> tuple[Path, Floats]:
        path = tiny.build(folder / "checkpoint", name)
        quantised_files.quantise(path, form)
        tensors = load_file(path / "model.safetensors")
        for each, values in tensors.items():  # what is not quantised
            if each.endswith(".weight") and values.ndim == 2:
                tensors[each] = _of_bytes(values.shape)
            if each.endswith(".scales") and "8-bit" in form:  # weights as real ones have
                tensors[each] = values / np.float16(16)
        quantised_files.write(path / "model.safetensors", tensors)
        with open_source(str(path)) as source:
            return path, _read(source, name)

    return write


def _of_bytes(shape: tuple[int, ...]) -> np.ndarray:
    """Weights that int8 holds exactly, as what is not quantised is stored so."""
    numbers = np.random.RandomState(9).randint(-127, 128, shape)
    numbers[:, ::32] = 127
    return (numbers / 512).astype(np.float32)


def _read(source: Source, name: str) -> Floats:
    """The weights that a source reads, in the matrices that the checkpoint has."""
    case = tiny.CASES[name]
    stored, shapes = tiny.FUSED.get(tiny.config_of(case)["model_type"], {}), source.shapes()
    result = {}
    for tensor in tiny.make_tensors(case):
        parts = [tensor]
        if tensor not in shapes:
            parts = [
                tensor.replace(whole, part) for part, whole in stored.items() if whole in tensor
            ]
        result[tensor] = np.concatenate([_in_place(source, part) for part in parts])
    return result


def _in_place(source: Source, name: str) -> np.ndarray:
    """A tensor of a source, its rows in the order of the checkpoint."""
    found = source.read(name)
    floats = found.dequantize() if isinstance(found, Quantized) else found
    linear = name.removesuffix(".weight").split(".", 3)[-1]
    result = np.array(floats)
    result[in_pairs(np.arange(len(floats)), linear, source.config)] = floats
    return result


def _gguf(kind: str) -> Callable[[Path, str], tuple[Path, Floats]]:
    def kind_of(_: str, values: np.ndarray) -> Kind:
        chosen = Kind[kind]
        block = gguf.GGML_QUANT_SIZES[chosen][0]
        if values.ndim == 1:
            return Kind.F32
        return chosen if values.shape[1] % block == 0 else Kind.Q8_0

    def write(folder: Path, name: str) -> tuple[Path, Floats]:
        case = tiny.CASES[name]
        if gguf_families.ARCHITECTURES[tiny.family_of(name)][0] == "llama":
            config = {**case.config, "sliding_window": None}  # for which such files have no key
            tiny.CASES[name] = replace(case, config=config)
        path = gguf_families.write(folder / "model.gguf", name, kind_of, scales=SCALES)
        return path, _weights_of(path, name)

    return write


def _weights_of(path: Path, name: str) -> Floats:
    """The weights in a GGUF file as its own package reads them, by their names in a checkpoint."""
    case = tiny.CASES[name]
    architecture, stems = gguf_families.ARCHITECTURES[tiny.family_of(name)]
    config = tiny.config_of(case)
    head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    stored = {each.name: each for each in gguf.GGUFReader(path).tensors}
    result = {}
    for tensor in tiny.make_tensors(case):
        if tensor in case.extra:
            continue
        file_name = gguf_families.gguf_name(tensor, {**gguf_families.STEMS, **stems})
        found = stored[file_name]
        values = gguf.quants.dequantize(found.data, found.tensor_type).reshape(found.shape[::-1])
        pairs = file_name.split(".")[-2] in ("attn_q", "attn_k")
        if architecture in gguf_files.INTERLEAVED and pairs:
            halves = values.reshape(-1, head_dim // 2, 2, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        result[tensor] = values
    return result
