"""convert: which numbers and orientation each matrix gets, and that exact sources stay exact."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packing import INT4, INT4_MINIMUM, INT4K, INT6K, INT8, FakeSource, contents, equal

from converters import chunks, pack
from converters.numbers.bundle_bytes import unpack_bundle
from converters.numbers.layout_bytes import unpack_matrix
from converters.numbers.quantize import Quantized, quantize
from converters.pack import choose_layout, convert
from converters.pack_options import PackOptions
from converters.sources.packed import PackedSource
from sparity_edge.choices import LAYOUTS
from sparity_edge.cli.options import packing as packing_options
from sparity_edge.errors import OptionError, SourceError
from sparity_edge.model.opening import open_packed, verify_packed
from sparity_edge.packed.bundle import PackedBundle, halves_of
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.packed.manifest import notes_in, read_manifest

BLOCK = "model.layers.1.self_attn.k_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
BF16 = ("bf16", 0, False)
F32 = ("f32", 0, False)
INT8_64 = ("int8", 64, False)


def matrices(folder: Path) -> dict[str, tuple[Layout, Any]]:
    """Layout and unpacked content of every matrix of a packed folder."""
    found: dict[str, tuple[Layout, Any]] = {}
    for name, tensor in open_packed(folder).tensors.items():
        if isinstance(tensor, PackedMatrix):
            found[name] = tensor.layout, unpack_matrix(tensor.data, tensor.layout)
        elif isinstance(tensor, PackedBundle):
            layouts = tensor.layout.up, tensor.layout.down
            found |= zip(halves_of(name), zip(layouts, unpack_bundle(tensor)))
    return found


def values(content: Any) -> Any:
    return content.dequantize() if isinstance(content, Quantized) else content


@pytest.mark.parametrize(
    ("dtype", "group", "native", "block", "embedding"),
    [
        (None, None, None, INT8, INT8),
        (None, 64, None, INT8_64, INT8_64),
        (None, None, INT4, INT4, INT4),
        (None, 128, INT4_MINIMUM, INT4_MINIMUM, INT4_MINIMUM),
        (None, None, INT8_64, INT8_64, INT8_64),
        (None, None, BF16, BF16, BF16),
        ("f32", None, INT8, F32, F32),
        ("bf16", None, None, BF16, BF16),
        ("int8", None, None, INT8, INT8),
        ("int8", None, INT8_64, INT8_64, INT8_64),
        ("int8", 32, INT8_64, INT8, INT8),
        ("int8", None, INT4, INT8, INT8),
        ("int4", None, None, INT4_MINIMUM, INT8),
        ("int4", 64, None, ("int4", 64, True), INT8_64),
        ("int4", None, INT4, INT4, INT4),
        ("int4", 32, INT4_MINIMUM, INT4_MINIMUM, INT4_MINIMUM),
        ("int4", 64, INT4, ("int4", 64, True), INT8_64),
        ("int4", None, INT8, INT4_MINIMUM, INT8),
        ("int4", None, BF16, INT4_MINIMUM, INT8),
        (None, None, INT4K, INT4K, INT4K),
        (None, None, INT6K, INT6K, INT6K),
        ("int4", None, INT4K, INT4_MINIMUM, INT4_MINIMUM),
        ("int4", 64, INT4K, ("int4", 64, True), INT8_64),
        ("int4", None, INT6K, INT4_MINIMUM, INT8),
        ("int8", None, INT4K, INT8, INT8),
        ("int8", None, INT6K, INT8, INT8),
        ("bf16", None, INT4K, BF16, BF16),
    ],
)
def test_which_numbers_a_matrix_gets(
    dtype: str | None, group: int | None, native: Any, block: Any, embedding: Any
) -> None:
    options = PackOptions(dtype, group)
    for name, expected in ((BLOCK, block), (EMBEDDING, embedding), ("lm_head.weight", embedding)):
        layout = choose_layout(name, (4, 256), native, options)
        assert (layout.dtype, layout.group, layout.minimum) == expected


@pytest.mark.parametrize(
    ("layout", "turned"),
    [
        ("dense", ""),
        ("ffn", "down_proj"),
        ("neurons", "q_proj o_proj down_proj"),
        ("mixed", "q_proj k_proj v_proj o_proj gate_proj down_proj"),
        ("input", "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
    ],
)
def test_which_matrices_are_turned(layout: str, turned: str) -> None:
    for name in [name for name, shape in FakeSource().shapes().items() if len(shape) == 2]:
        found = choose_layout(name, (4, 4), None, PackOptions(layout=layout)).orientation
        expected = name.startswith("model.layers") and name.split(".")[-2] in turned.split()
        assert (found == "input") == expected


def test_the_command_line_knows_the_layouts() -> None:
    assert LAYOUTS == packing_options.LAYOUTS


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "fp16"},
        {"dtype": 8},
        {"group": 16},
        {"group": "32"},
        {"layout": "other"},
        {"dtype": "f32", "group": 32},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        PackOptions(**options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("native", [INT8, INT4, INT4_MINIMUM, ("int4", 128, True)])
def test_integers_of_the_source_are_kept(tmp_path: Path, layout: str, native: Any) -> None:
    source = FakeSource({"weight": native})
    found = matrices(convert(source, tmp_path / "out", PackOptions(layout=layout)))
    assert len(found) == 16
    for name, (_, content) in found.items():
        assert equal(content, source.tensors[name])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("dtype", "group", "error"),
    [("f32", None, 0.0), ("bf16", None, 2**-8), ("int8", 64, 1 / 254), ("int4", 32, 1.5 / 15)],
)
def test_errors_stay_in_bounds(
    tmp_path: Path, layout: str, dtype: str, group: int | None, error: float
) -> None:
    source = FakeSource({"k_proj": INT4, "down_proj": INT8})
    folder = convert(source, tmp_path / "out", PackOptions(dtype, group, layout))
    verify_packed(folder)
    for name, (stored, content) in matrices(folder).items():
        expected = source.weights(name)
        assert stored.shape == expected.shape
        assert np.abs(values(content) - expected).max() <= 1.01 * error * np.abs(expected).max()
    vectors = {k: v for k, v in open_packed(folder).tensors.items() if isinstance(v, np.ndarray)}
    assert set(vectors) == {name for name, shape in source.shapes().items() if len(shape) == 1}
    for name, vector in vectors.items():
        assert equal(vector, source.tensors[name])


@pytest.mark.parametrize("block", [1, 100, 1000])
def test_blocks_of_rows_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    options = PackOptions("int8", 32, "mixed")
    whole = convert(FakeSource({"down_proj": INT4}), tmp_path / "whole", options)
    monkeypatch.setattr(chunks, "STEP_ELEMENTS", block)
    parts = convert(FakeSource({"down_proj": INT4}), tmp_path / "parts", options)
    assert contents(parts) == contents(whole)


@pytest.mark.parametrize("layouts", list(itertools.permutations(LAYOUTS, 2)))
@pytest.mark.parametrize("dtype", [None, "f32", "bf16", "int4"])
def test_repacking_moves_numbers_and_changes_none(
    tmp_path: Path, dtype: str | None, layouts: tuple[str, str]
) -> None:
    source = FakeSource({"q_proj": INT4, "v_proj": INT4_MINIMUM, "mlp": INT8})
    first = convert(source, tmp_path / "first", PackOptions(dtype, layout=layouts[0]))
    second = convert(PackedSource(first), tmp_path / "second", PackOptions(layout=layouts[1]))
    direct = convert(source, tmp_path / "direct", PackOptions(dtype, layout=layouts[1]))
    shard = "model-00001-of-00001.safetensors"
    assert contents(second)[shard] == contents(direct)[shard]
    assert contents(second)["chat_template.jinja"] == b"{{ messages }}"
    again = convert(PackedSource(second), tmp_path / "again", PackOptions(layout=layouts[0]))
    assert contents(again)[shard] == contents(first)[shard]


def test_a_packed_source_describes_itself(tmp_path: Path) -> None:
    source = FakeSource({"q_proj": INT4})
    with PackedSource(convert(source, tmp_path / "out", PackOptions("int8"))) as packed:
        assert packed.shapes() == source.shapes()
        assert packed.native(BLOCK) == INT8
        assert packed.native("model.norm.weight") is None
        assert packed.config_json == source.config_json
        assert packed.tokenizer_files == source.tokenizer_files
        assert len(packed.fingerprint()) == 64
        rows = packed.read(BLOCK, 3, 7)
        assert equal(rows, quantize(source.tensors[BLOCK][3:7], "int8", 32))


def test_what_was_read_otherwise_stays_known(tmp_path: Path) -> None:
    source = FakeSource()
    source.notes = ("3 matrices are read as floats.",)
    once = convert(source, tmp_path / "once", PackOptions())
    again = convert(PackedSource(once), tmp_path / "again", PackOptions())
    assert notes_in(read_manifest(again)) == list(source.notes)
    assert notes_in({"notes": "none"}) == notes_in({"notes": [3]}) == []


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    folder = convert(
        FakeSource(), tmp_path / "out", PackOptions(), progress=lambda *call: calls.append(call)
    )
    assert {label for label, _, _ in calls} == {"pack"}
    assert calls[-1][1] == calls[-1][2] == open_packed(folder).nbytes
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_a_source_is_read_by_one_thread_at_a_time_and_only_a_little_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(FakeSource):
        def read(self, name: str, start: int = 0, stop: int | None = None) -> Any:
            assert lock.acquire(blocking=False)
            reads.append(name)
            try:
                return super().read(name, start, stop)
            finally:
                lock.release()

    lock, reads, ahead = threading.Lock(), [], []
    monkeypatch.setattr(chunks, "STEP_ELEMENTS", 200)
    written = itertools.count(1)
    convert(
        Watched(),
        tmp_path / "out",
        PackOptions(),
        progress=lambda *_: ahead.append(len(reads) - next(written)),
    )
    assert max(ahead) <= pack.MAX_WORKERS + 1


def spoil(name: str, value: float) -> Callable[[FakeSource], None]:
    def change(source: FakeSource) -> None:
        tensor = source.tensors[name]
        if isinstance(tensor, Quantized):
            tensor.scales[1] = value
        else:
            tensor[1] = value

    return change


@pytest.mark.parametrize(
    ("dtype", "name", "value", "message"),
    [
        ("int8", BLOCK, np.nan, "not finite"),
        ("int4", BLOCK, np.inf, "not finite"),
        ("f32", BLOCK, np.nan, "not finite"),
        ("bf16", EMBEDDING, -np.inf, "not finite"),
        ("f32", "model.norm.weight", np.nan, "not finite"),
        (None, "model.layers.0.mlp.up_proj.weight", np.nan, "scales that are not finite"),
        ("f32", "model.layers.0.mlp.up_proj.weight", np.inf, "scales that are not finite"),
        ("int8", BLOCK, 1e7, "too large .*--dtype bf16"),
        ("int4", BLOCK, -1e5, "too large .*--dtype bf16"),
        ("bf16", BLOCK, 3.4e38, "too large for bf16.*--dtype f32"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, dtype: str | None, name: str, value: float, message: str
) -> None:
    source = FakeSource({"up_proj": INT4_MINIMUM})
    spoil(name, value)(source)
    with pytest.raises(SourceError, match=f"{name} holds .*{message}"):
        convert(source, tmp_path / "out", PackOptions(dtype))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_transformers(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    from converters.sources import open_source

    with open_source(str(checkpoint("llama_odd"))) as source:
        folder = convert(source, tmp_path / "out", PackOptions("f32", layout="input"))
        for name, (_, content) in matrices(folder).items():
            assert np.array_equal(content, np.asarray(source.read(name)).astype(np.float32))
