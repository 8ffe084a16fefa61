"""A GGUF file as a source: tensors under their checkpoint names, numbers kept where that is exact.

Types that `numbers.gguf_blocks.NATIVE` lists come in without loss, and every other type that the
gguf package can dequantise as float32. llama.cpp interleaves the rows of q and k for some
architectures (its rotary embedding takes neighbours for pairs); this module puts them back. The
files are read in gguf_parts, the meaning of their metadata is in gguf_config, gguf_special and
gguf_tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from converters.numbers.gguf_blocks import NATIVE, UNPACK
from converters.numbers.quantize import Quantized
from converters.sources.card import card_of_gguf
from converters.sources.gguf_config import (
    family_of,
    make_config,
    notes_on_config,
    suggested_sampling,
)
from converters.sources.gguf_metadata import MAX_SHOWN, TensorInfo
from converters.sources.gguf_parts import read_parts
from converters.sources.gguf_rope import FACTOR_TENSORS
from converters.sources.gguf_special import SpecialTokens
from converters.sources.gguf_tokenizer import make_tokenizer_files, notes_on_tokenizer
from converters.sources.gguf_vocabulary import Vocabulary
from converters.sources.source import Array, Source, unreadable
from sparity_edge.errors import SourceError

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_rot_embd": "self_attn.rotary_emb",
}
IGNORED = set(FACTOR_TENSORS)  # gguf_rope reads them
IGNORED_MODULES = (".rotary_emb.weight",)  # in old files; rope_theta tells the same


class GgufSource(Source):
    """A GGUF model, in one file or several, of an architecture that a family names."""

    def __init__(self, path: Path, label: str) -> None:
        """Read the header and rebuild configuration and tokenizer from it.

        Raises:
            SourceError: the file is damaged, or of a kind that is not supported.
        """
        header, self.files = read_parts(path, label)
        self.label, self.card = label, card_of_gguf(header.metadata)
        self._family, names = family_of(header)
        modules = {**LAYER_NAMES, **names.tensors}
        self._tensors: dict[str, str] = {}
        for name in header.tensors:
            if self._tensors.setdefault(_checkpoint_name(name, modules, label), name) != name:
                raise _misplaced(name, label)  # another one has its place
        self._infos = header.tensors
        self._opened: list[BinaryIO] = []
        try:
            self._opened += map(_open, self.files)
            self._interleaved = names.interleaved
            self.config_json = make_config(header, self._rope_factors())
            special = SpecialTokens.read(header, Vocabulary.read(header))
            self.tokenizer_files = make_tokenizer_files(header, special)
            self.generation_config = special.generation_config() | suggested_sampling(header)
            self.notes = (
                *notes_on_config(header), *special.notes, *notes_on_tokenizer(header),
                *self._notes_on_numbers(),
            )  # fmt: skip
            self._refuse_unread()
        except BaseException:
            self.close()
            raise
        self._head_dim = self.config_json["head_dim"]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: self._infos[tensor].shape for name, tensor in self._tensors.items()}

    def check_dtype(self, name: str) -> None:
        kind = self._info(name).kind
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8), kind)
        except (NotImplementedError, KeyError) as error:
            raise SourceError(
                f"{self.label}: tensor {name} has number type {kind.name}, which is not supported; "
                "take a file in Q8_0 or Q4_K_M."
            ) from error

    def native(self, name: str) -> tuple[str, int, bool] | None:
        info = self._info(name)
        return NATIVE.get(info.kind) if len(info.shape) == 2 else None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array | Quantized:
        info = self._info(name)
        stop = info.shape[0] if stop is None else stop
        if len(info.shape) == 1:
            return self._read_vector(name, info)[start:stop]
        rows = self._read_rows(name, info, start, stop)
        # Damaged scales may overflow in either way; the outcome is looked at.
        with np.errstate(over="ignore", invalid="ignore"):
            if info.kind in NATIVE:
                quantized = UNPACK[info.kind](rows)
                parts = quantized.scales, quantized.minimums, quantized.factors
                self._refuse_not_finite(name, *parts)
                return quantized
            values = np.ascontiguousarray(dequantize(rows, info.kind), dtype=np.float32)
        self._refuse_not_finite(name, values)
        return values

    def close(self) -> None:
        for file in self._opened:
            file.close()

    def _info(self, name: str) -> TensorInfo:
        return self._infos[self._tensors[name]]

    def _refuse_unread(self) -> None:
        """Refuse a tensor that the decoder would leave out, as llama.cpp does."""
        read = self._family.names_in_files(self.config.tensor_shapes())
        for name, tensor in self._tensors.items():
            if name not in read and tensor not in IGNORED and not name.endswith(IGNORED_MODULES):
                raise _misplaced(tensor, self.label)

    def _refuse_not_finite(self, name: str, *arrays: Array | None) -> None:
        if not all(array is None or np.isfinite(array).all() for array in arrays):
            raise SourceError(
                f"{self.label}: tensor {name} holds numbers that are not finite or too large for "
                "float16; the file is damaged, fetch it again."
            )

    def _notes_on_numbers(self) -> tuple[str, ...]:
        """What becomes of numbers that no kernel takes, as a sentence."""
        floats = {GGMLQuantizationType[name] for name in ("F32", "F16", "BF16")}
        kinds = [info.kind for info in self._infos.values() if len(info.shape) == 2]
        others = [kind.name for kind in kinds if kind not in NATIVE and kind not in floats]
        if not others:
            return ()
        count = "1 matrix" if len(others) == 1 else f"{len(others)} matrices"
        return (
            f"{count} in {', '.join(sorted(set(others)))} {'is' if len(others) == 1 else 'are'} "
            "read as floats, since no kernel takes such numbers; packing rounds them anew, but "
            "not with dtype f32.",
        )

    def _is_interleaved(self, name: str) -> bool:
        return self._interleaved and (".q_proj." in name or ".k_proj." in name)

    def _read_vector(self, name: str, info: TensorInfo) -> Array:
        raw = self._read_bytes(info, 0, info.row_bytes)
        with np.errstate(over="ignore", invalid="ignore"):
            values = dequantize(raw, info.kind)
        self._refuse_not_finite(name, values)
        if self._is_interleaved(name):
            values = values[_gguf_rows(0, values.size, self._head_dim)]
        return np.array(values, dtype=np.float32)

    def _read_rows(self, name: str, info: TensorInfo, start: int, stop: int) -> Array:
        """Bytes (rows, row_bytes) of rows start:stop in the order of the checkpoint."""
        if not self._is_interleaved(name):
            raw = self._read_bytes(info, start * info.row_bytes, (stop - start) * info.row_bytes)
            return raw.reshape(-1, info.row_bytes)
        # The rows of a head stay inside it, so whole heads are read and then picked from.
        first = start // self._head_dim * self._head_dim
        last = min(-(-stop // self._head_dim) * self._head_dim, info.shape[0])
        raw = self._read_bytes(info, first * info.row_bytes, (last - first) * info.row_bytes)
        rows = _gguf_rows(start, stop, self._head_dim) - first
        picked: Array = raw.reshape(-1, info.row_bytes)[rows]
        return picked

    def _read_bytes(self, info: TensorInfo, start: int, count: int) -> Array:
        file = self._opened[info.part]
        try:
            file.seek(info.offset + start)
            content: Array = np.fromfile(file, dtype=np.uint8, count=count)
        except OSError as error:
            raise unreadable(self.files[info.part], error) from error
        if content.size != count:
            raise SourceError(f"{self.label}: the file became shorter while it was read.")
        return content

    def _rope_factors(self) -> dict[str, Array]:
        found = {}
        for name in FACTOR_TENSORS:
            info = self._infos.get(name)
            if info is None:
                continue
            if len(info.shape) != 1 or info.kind != GGMLQuantizationType.F32:
                raise SourceError(f"{self.label}: {name} is not a list of float32 numbers.")
            found[name] = self._read_bytes(info, 0, info.row_bytes).view("<f4")
        return found


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error


def _checkpoint_name(name: str, modules: Mapping[str, str], label: str) -> str:
    """`blk.0.attn_q.weight` -> `model.layers.0.self_attn.q_proj.weight`, by stems of a layer."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match:
        layer, stem, kind = match.groups()
        if layer is None and stem in NAMES:
            return f"{NAMES[stem]}.{kind}"
        if layer is not None and stem in modules:
            return f"model.layers.{layer}.{modules[stem]}.{kind}"
    if name in IGNORED:
        return name
    raise _misplaced(name, label)


def _misplaced(name: str, label: str) -> SourceError:
    return SourceError(
        f"{label}: tensor {name[:MAX_SHOWN]!r} has no place in a model of this configuration; "
        "without it answers would be wrong, so take another model."
    )


def _gguf_rows(start: int, stop: int, head_dim: int) -> Array:
    """Where GGUF keeps the rows start:stop of q or k.

    A checkpoint holds the two halves of a rotary pair head_dim / 2 apart; llama.cpp interleaves
    them, so row (half, i) of a head became row (i, half).
    """
    rows = np.arange(start, stop)
    head, inside = np.divmod(rows, head_dim)
    half, pair = np.divmod(inside, head_dim // 2)
    return np.asarray(head * head_dim + pair * 2 + half)
