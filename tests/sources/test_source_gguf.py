"""GGUF files: weights of every number type, row by row, and files that are damaged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import gguf
import gguf_files
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf_files import HEAD_DIM, VOCAB, checkpoint_name, encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.numbers.quantize import Quantized
from converters.sources import open_source
from converters.sources.source import Source
from sparity_edge.errors import SourceError, SparityError

NATIVE = {
    Kind.Q8_0: ("int8", 32, False),
    Kind.Q4_0: ("int4", 32, False),
    Kind.Q4_1: ("int4", 32, True),
    Kind.Q5_0: ("int5", 32, False),
    Kind.Q5_1: ("int5", 32, True),
    Kind.IQ4_NL: ("iq4", 32, False),
    Kind.IQ4_XS: ("iq4k", 32, False),
    Kind.Q2_K: ("int2k", 16, True),
    Kind.Q3_K: ("int3k", 16, False),
    Kind.Q4_K: ("int4k", 32, True),
    Kind.Q5_K: ("int5k", 32, True),
    Kind.Q6_K: ("int6k", 16, False),
}
MATRICES = [
    "token_embd.weight",
    *(f"blk.0.{stem}.weight" for stem in gguf_files.BLOCK if "norm" not in stem),
]


def floats(value: np.ndarray | Quantized) -> np.ndarray:
    return value.dequantize() if isinstance(value, Quantized) else value


def expected(values: np.ndarray, kind: Kind) -> np.ndarray:
    """What a matrix is worth after it was stored; groups lie in rows, so order does not matter."""
    return gguf.quants.dequantize(encode(values, kind), kind)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q5_1])
def test_weights_are_exact(write: Callable[..., str], architecture: str, kind: Kind) -> None:
    biases = ("attn_q", "attn_k", "attn_v") if architecture == "qwen2" else ()
    weights = gguf_files.tensors(biases, untied=True)
    kinds = dict.fromkeys((*MATRICES, "output.weight"), kind)
    path = write(architecture=architecture, weights=weights, kinds=kinds)
    with open_source(path) as source:
        for name, values in weights.items():
            wanted = expected(values, kinds.get(name, Kind.F32))
            np.testing.assert_array_equal(floats(source.read(checkpoint_name(name))), wanted)
            wanted_native = NATIVE.get(kind) if name in kinds else None
            assert source.native(checkpoint_name(name)) == wanted_native


@pytest.mark.parametrize(
    "kind",
    [
        *(Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.Q5_0, Kind.Q4_1),
        *(Kind.IQ4_NL, Kind.IQ4_XS, Kind.IQ3_S, Kind.IQ3_XXS, Kind.IQ2_S, Kind.IQ2_XS),
        *(Kind.IQ2_XXS, Kind.IQ1_S, Kind.IQ1_M, Kind.TQ1_0, Kind.TQ2_0, Kind.MXFP4, Kind.NVFP4),
    ],
)
def test_other_types_are_exact_too(write: Callable[..., str], kind: Kind) -> None:
    weights = gguf_files.tensors()
    name = "blk.0.ffn_down.weight"  # not permuted, so that random bytes are comparable
    with open_source(write(weights=weights, kinds={name: kind})) as source:
        read = f"1 matrix in {kind.name} is read as floats"
        assert any(read in note for note in source.notes) == (kind not in NATIVE)
        value = source.read(checkpoint_name(name))
        wanted = expected(weights[name], kind)
        np.testing.assert_array_equal(floats(value), wanted)
        assert isinstance(value, Quantized) == (kind in NATIVE)


def test_numbers_that_no_kernel_takes_are_told_together(write: Callable[..., str]) -> None:
    kinds = dict.fromkeys(MATRICES, Kind.TQ2_0) | {MATRICES[0]: Kind.F16, MATRICES[1]: Kind.MXFP4}
    with open_source(write(kinds=kinds)) as source:
        (note,) = source.notes
        assert "7 matrices in MXFP4, TQ2_0 are read as floats" in note


@pytest.mark.parametrize("kind", [Kind.F32, Kind.Q8_0, Kind.Q4_1])
@pytest.mark.parametrize("span", [(0, 1), (1, 3), (HEAD_DIM - 1, HEAD_DIM + 1), (37, 128)])
def test_blocks_of_rows(write: Callable[..., str], kind: Kind, span: tuple[int, int]) -> None:
    name = "blk.0.attn_k.weight"
    with open_source(write(kinds={name: kind})) as source:
        whole = floats(source.read(checkpoint_name(name)))
        part = floats(source.read(checkpoint_name(name), *span))
        np.testing.assert_array_equal(part, whole[slice(*span)])


def test_permuted_biases(write: Callable[..., str]) -> None:
    stems = [stem for stem in gguf_files.BLOCK if "norm" not in stem]
    weights = gguf_files.tensors(stems)
    with open_source(write(weights=weights)) as source:
        assert source.config_json["attention_bias"]
        assert source.config_json["mlp_bias"]
        for name, values in weights.items():
            np.testing.assert_array_equal(floats(source.read(checkpoint_name(name))), values)


def test_missing_tensor(write: Callable[..., str]) -> None:
    weights = gguf_files.tensors()
    del weights["blk.0.ffn_up.weight"]
    with pytest.raises(SourceError, match=r"model\.layers\.0\.mlp\.up_proj\.weight.*missing"):
        open_source(write(weights=weights))


WITHOUT_A_PLACE = (
    *("output.bias", "output_norm.bias", "token_embd.bias", "token_embd_norm.weight"),
    *("blk.0.attn_q_norm.weight", "blk.0.attn_output.bias", "blk.0.ffn_gate_inp.weight"),
    *("blk.0.attn_post_norm.weight", "blk.0.attn_norm.bias", "blk.0.ffn_down.scale"),
    *("blk.1.attn_q.weight", "rope_factors.weight", "v.patch_embd.weight"),
)


@pytest.mark.parametrize("name", WITHOUT_A_PLACE)
def test_tensor_without_a_place(write: Callable[..., str], name: str) -> None:
    weights = gguf_files.tensors() | {name: np.ones(256, np.float32)}
    with pytest.raises(SourceError, match=f"tensor '{name}' has no place"):
        open_source(write(weights=weights))


def test_rotary_frequencies_of_old_files_are_not_needed(write: Callable[..., str]) -> None:
    weights = gguf_files.tensors() | {"blk.0.attn_rot_embd.weight": np.ones(32, np.float32)}
    open_source(write(weights=weights)).close()


def test_more_tokens_than_rows(write: Callable[..., str]) -> None:
    weights = gguf_files.tensors()
    weights["token_embd.weight"] = weights["token_embd.weight"][:-1]
    with pytest.raises(SourceError, match=f"{VOCAB} tokens.*{VOCAB - 1} rows"):
        open_source(write(weights=weights))


def test_more_rows_than_tokens(write: Callable[..., str]) -> None:
    weights = gguf_files.tensors()
    weights["token_embd.weight"] = np.vstack([weights["token_embd.weight"]] * 2)
    with open_source(write(weights=weights)) as source:
        assert source.config_json["vocab_size"] == 2 * VOCAB


def test_scales_that_are_not_finite(write: Callable[..., str]) -> None:
    name = "blk.0.ffn_up.weight"
    path = Path(write(kinds={name: Kind.Q8_0}))
    with open_source(str(path)) as source:
        offset = source._infos[name].offset  # type: ignore[attr-defined]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.float16(np.inf).tobytes())
    with open_source(str(path)) as source, pytest.raises(SourceError, match="not finite"):
        source.read(checkpoint_name(name))


def read_everything(source: Source) -> None:
    for name in source.config.tensor_shapes():
        source.read(name)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("healthy") / "model.gguf"
    return gguf_files.write(path, kinds=dict.fromkeys(MATRICES, Kind.Q4_0))


@settings(
    max_examples=300, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4),
    keep=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damage_never_escapes(
    healthy: Path, tmp_path: Path, flips: list[tuple[float, int]], keep: float | None
) -> None:
    content = bytearray(healthy.read_bytes())
    # Damage to the header is what matters; numbers that changed are still numbers.
    end = content.index(b"output_norm.weight") + 64
    for place, change in flips:
        content[int(place * end)] ^= change
    if keep is not None:
        del content[int(keep * len(content)) :]
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with contextlib.suppress(SparityError), open_source(str(path)) as source:
        read_everything(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("name", ["pipe", "pipe.gguf"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError, match="neither a folder nor a GGUF file"):
        open_source(str(tmp_path / name))
