"""Bundles in a packed folder: packed in little memory, read without trust, multiplied in place."""

from __future__ import annotations

import json
import shutil
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import CONFIG, INT4_MINIMUM, INT8, FakeSource, equal, random_weights

from converters import chunks
from converters.numbers.bundle_bytes import (
    DOWN_STEP,
    pack_bundle,
    read_down,
    read_up,
    unpack_bundle,
    write_down,
    write_up,
)
from converters.numbers.layout_bytes import pack_matrix
from converters.pack import convert
from converters.pack_options import PackOptions
from sparity_edge.arrays import Floats, aligned_empty, rows
from sparity_edge.errors import FormatError, OptionError
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.simd.float_tiles import PANEL, TOKENS
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.packed.bundle import BundleLayout, PackedBundle, halves_of, split
from sparity_edge.packed.layout import GROUPS, Layout
from sparity_edge.packed.shards import build_header

SHARD = "model-00001-of-00001.safetensors"
BUNDLE = "model.layers.0.mlp.up_down"
FORMS = [("f32", 0, False), ("bf16", 0, False)]
FORMS += [("int8", group, False) for group in GROUPS]
FORMS += [("int4", group, minimum) for group in GROUPS for minimum in (False, True)]
Form = tuple[str, int, bool]


def layout_of(up: Form, down: Form, neurons: int, hidden: int) -> BundleLayout:
    return BundleLayout(
        Layout(up[0], "output", (neurons, hidden), *up[1:]),
        Layout(down[0], "input", (hidden, neurons), *down[1:]),
    )


@settings(deadline=None)
@given(
    st.sampled_from(FORMS), st.sampled_from(FORMS), st.integers(1, 300), st.integers(1, 300),
    st.data(),
)  # fmt: skip
def test_rows_are_written_and_read_some_at_a_time(
    up: Form, down: Form, neurons: int, hidden: int, data: st.DataObject
) -> None:
    layout = layout_of(up, down, neurons, hidden)
    weights = random_weights(layout.up, 1), random_weights(layout.down, 2)
    whole = pack_bundle(*weights, layout)
    assert all(equal(*pair) for pair in zip(unpack_bundle(PackedBundle(layout, whole)), weights))
    parts = aligned_empty(layout.nbytes)
    parts.fill(0)
    step = data.draw(st.integers(1, 100))
    for start in range(0, neurons, step):
        write_up(parts, read_up(whole, layout, start, min(neurons, start + step)), layout, start)
    for start in reversed(range(0, hidden, DOWN_STEP)):
        some = read_down(whole, layout, start, min(hidden, start + DOWN_STEP))
        write_down(parts, some, layout, start)
    assert np.array_equal(parts, whole)
    start = data.draw(st.integers(0, hidden - 1))
    stop = data.draw(st.integers(start + 1, hidden))
    expected = weights[1].dequantize() if layout.down.quantized else weights[1]
    got = read_down(whole, layout, start, stop)
    got = got.dequantize() if layout.down.quantized else got
    assert np.array_equal(got, expected[start:stop])


def test_a_bundle_layout_survives_json() -> None:
    layout = layout_of(INT8, INT4_MINIMUM, 90, 50)
    assert BundleLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


# Packing


def test_one_bundle_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(FakeSource):
        def __init__(self) -> None:
            super().__init__()
            self.config_json |= {"intermediate_size": 20000, "num_hidden_layers": 6}

        def native(self, name: str) -> None:  # noqa: ARG002
            return None

        def read(self, name: str, start: int = 0, stop: int | None = None) -> Any:
            shape = self.shapes()[name]
            stop = shape[0] if stop is None else stop
            return np.ones((stop - start, *shape[1:]), dtype=np.float32)

    def watched_empty(nbytes: int) -> Any:
        data = aligned_empty(nbytes)
        if nbytes == bundle.nbytes:
            alive.add(data.ctypes.data)
            weakref.finalize(data, alive.remove, data.ctypes.data)
            counts.append(len(alive))
        return data

    alive, counts = set[int](), list[int]()
    bundle = layout_of(("f32", 0, False), ("f32", 0, False), 20000, 50)
    monkeypatch.setattr(chunks, "STEP_ELEMENTS", 1 << 12)
    monkeypatch.setattr(chunks, "aligned_empty", watched_empty)
    tracemalloc.start()
    convert(Wide(), tmp_path / "out", PackOptions("f32", layout="neurons"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts == [1] * 6
    # 128 rows of down at a time are all of them here, and there are a few threads.
    assert peak < 4 * bundle.nbytes


def test_biases_of_up_and_down_rule_bundles_out(tmp_path: Path) -> None:
    source = FakeSource()
    source.config_json["mlp_bias"] = True
    with pytest.raises(OptionError, match=r"biases rule out; use dense or input"):
        convert(source, tmp_path / "out", PackOptions(layout="neurons"))


# Reading


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "model"
    return convert(FakeSource({"down_proj": INT4_MINIMUM}), folder, PackOptions(layout="neurons"))


@pytest.fixture
def packed(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))


def test_a_model_holds_bundles(pristine: Path) -> None:
    model, source = open_packed(pristine), FakeSource({"down_proj": INT4_MINIMUM})
    for layer in range(2):
        name = BUNDLE.replace("0", str(layer))
        bundle = model.tensors[name]
        assert isinstance(bundle, PackedBundle)
        assert bundle.data.ctypes.data % 64 == 0
        assert not set(halves_of(name)) & set(model.tensors)
        up, down = unpack_bundle(bundle)
        expected = source.tensors[halves_of(name)[0]]
        assert np.abs(up.dequantize() - expected).max() < 0.02
        assert equal(down, source.tensors[halves_of(name)[1]])
    assert model.nbytes == sum(stored.nbytes for stored in open_folder(pristine).tensors.values())


def rewrite(folder: Path, tensors: dict[str, Any], config: dict[str, Any] | None = None) -> None:
    """Make the shard hold `tensors`, zeros all of them, and the manifest agree."""
    size = sum(4 * spec[0] if isinstance(spec, tuple) else spec.nbytes for spec in tensors.values())
    (folder / SHARD).write_bytes(build_header(tensors) + bytes(size))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    manifest = json.loads((folder / "sparity.json").read_text(encoding="utf-8"))
    for name, entry in manifest["files"].items():
        entry["size"] = (folder / name).stat().st_size
    (folder / "sparity.json").write_text(json.dumps(manifest))


HALVES = dict(zip(halves_of(BUNDLE), (lambda b: b.up, lambda b: b.down)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, b: t.update({n: half(b) for n, half in HALVES.items()}), "has no place"),
        (lambda t, b: t.update({n: half(b) for n, half in [*HALVES.items()][:1]}), "has no place"),
        (lambda t, _: t.pop(BUNDLE), "lacks the tensor model.layers.0.mlp.up_proj.weight"),
        (lambda t, b: t.update({BUNDLE: b.up}), r"holds .*down_proj.weight as \[90, 50\]"),
        (lambda t, _: t.update({BUNDLE: (50,)}), r"up_proj.weight as \[50\]"),
        (lambda t, _: t.update({BUNDLE: layout_of(INT8, INT8, 91, 50)}), r"as \[91, 50\]"),
        (lambda t, _: t.update({BUNDLE: layout_of(INT8, INT8, 90, 51)}), r"as \[90, 51\]"),
        (lambda t, b: t.update({"model.embed_tokens.weight": b}), r"embed_tokens.weight as \[\]"),
        (lambda t, b: t.update({BUNDLE.replace("0", "2"): b}), "has no place"),
        (lambda t, b: t.update({"up_down": b}), "has no place"),
    ],
)
def test_bundles_in_the_wrong_place_are_refused(
    packed: Path, change: Callable[[dict[str, Any], BundleLayout], Any], message: str
) -> None:
    tensors = {name: stored.spec for name, stored in open_folder(packed).tensors.items()}
    rewrite(packed, tensors)
    open_packed(packed)
    bundle = tensors[BUNDLE]
    assert isinstance(bundle, BundleLayout)
    change(tensors, bundle)
    matrices = {n: spec for n, spec in tensors.items() if not isinstance(spec, tuple)}
    rewrite(packed, {**matrices, **tensors})
    with pytest.raises(FormatError, match=message):
        open_packed(packed)


def test_bundles_of_a_model_with_biases_there_are_refused(packed: Path) -> None:
    tensors = {name: stored.spec for name, stored in open_folder(packed).tensors.items()}
    for layer in range(2):
        tensors |= {f"model.layers.{layer}.mlp.{n}_proj.bias": (90,) for n in ("gate", "up")}
        tensors[f"model.layers.{layer}.mlp.down_proj.bias"] = (50,)
    rewrite(packed, tensors, {**CONFIG, "mlp_bias": True})
    with pytest.raises(FormatError, match=r"bundles .*up_proj.weight, which has a bias"):
        open_packed(packed)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("down"),
        lambda value: value.update(more=1),
        lambda value: value.update(up=None),
        lambda value: value["up"].update(orientation="input"),
        lambda value: value["down"].update(shape=[50, 91]),
        lambda value: value["down"].update(group=64),
    ],
)
def test_contradictory_bundle_layouts_are_refused(
    packed: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    content = (packed / SHARD).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["sparity_edge"])
    change(metadata["tensors"][BUNDLE])
    header["__metadata__"]["sparity_edge"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    text = text.ljust(-(-(len(text) + 8) // 64) * 64 - 8)
    (packed / SHARD).write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    manifest = json.loads((packed / "sparity.json").read_text(encoding="utf-8"))
    manifest["files"][SHARD]["size"] = (packed / SHARD).stat().st_size
    (packed / "sparity.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="convert the model again"):
        open_packed(packed)


# Products of many tokens


@pytest.fixture(scope="module")
def machine() -> Iterator[ThreadedMachine]:
    made = ThreadedMachine(2)
    yield made
    made.close()


def product(machine: ThreadedMachine, x: Floats, matrix: Any) -> Floats:
    out = rows(len(x), matrix.layout.shape[0])
    machine.prepare(lambda ops: ops.linear(x, matrix, out))(False)
    return out


def assert_halves_equal(machine: ThreadedMachine, layout: BundleLayout, tokens: int) -> None:
    """Products with the halves of a bundle are those with the matrices it was made of."""
    weights = random_weights(layout.up, 1), random_weights(layout.down, 2)
    packed = PackedBundle(layout, pack_bundle(*weights, layout))
    for matrix, each, half in zip(split(packed), weights, (layout.up, layout.down), strict=True):
        assert np.array_equal(matrix.data, pack_matrix(each, half))
    bundle = machine.bundle(packed)
    handles = zip(split(packed), (bundle.up_rows, bundle.down_rows), strict=True)
    for matrix, half in handles:
        x = rows(tokens, matrix.layout.shape[1])
        x[:] = np.random.default_rng(3).standard_normal(x.shape)
        expected = product(machine, x, machine.matrix(matrix))
        assert expected.any()
        assert np.array_equal(product(machine, x, half), expected)


@pytest.mark.parametrize("down", FORMS)
@pytest.mark.parametrize("up", FORMS)
def test_halves_multiply_like_matrices(machine: ThreadedMachine, up: Form, down: Form) -> None:
    assert_halves_equal(machine, layout_of(up, down, 4 * PANEL + 9, 3 * PANEL + 5), TOKENS + 1)


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(FORMS), st.sampled_from(FORMS), st.integers(1, 700), st.integers(1, 300),
    st.integers(2, 20),
)  # fmt: skip
def test_halves_of_any_size(
    machine: ThreadedMachine, up: Form, down: Form, neurons: int, hidden: int, tokens: int
) -> None:
    assert_halves_equal(machine, layout_of(up, down, neurons, hidden), tokens)
