"""Packed folders that strangers made or damaged: refused in one sentence, never a crash."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed_files import NORM, SHARD, UP, edit_header, edit_manifest, replace_header, resize
from packing import CONFIG
from safetensors_files import taken_apart

from sparity_edge.errors import FormatError, SparityError
from sparity_edge.model.opening import open_packed, verify_packed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="other"), "not the manifest"),
        (lambda m: m.update(version=1), r"has format version 1 and this program reads version 8"),
        (lambda m: m.update(version=True), "names no format version"),
        (lambda m: m.pop("version"), "names no format version"),
        (lambda m: m.update(files=[]), "lists no files"),
        (lambda m: m["files"].update({"../x": {"size": 1, "sha256": ""}}), "not a plain file name"),
        (lambda m: m["files"].update({"/etc/passwd": {}}), "not a plain file name"),
        (lambda m: m["files"].update({"a\\b": {}}), "not a plain file name"),
        (lambda m: m["files"].update({"C:x": {}}), "not a plain file name"),
        (lambda m: m["files"].update({"..": {}}), "not a plain file name"),
        (lambda m: m["files"].update({"": {}}), "not a plain file name"),
        (lambda m: m["files"].update({"a\x1b[2J": {}}), "not a plain file name"),
        (lambda m: m["files"].update({"gone": {"size": 1, "sha256": ""}}), "gone is missing"),
        (lambda m: m["files"].update({SHARD: None}), "without size"),
        (lambda m: m["files"][SHARD].update(size="1"), "without size"),
        (lambda m: m["files"][SHARD].update(size=10**400), "bytes but has"),
        (lambda m: m["files"][SHARD].pop("sha256"), "without size or SHA-256"),
        (lambda m: m["files"].pop(SHARD), "complete set of weight files"),
        (lambda m: m["files"].pop("config.json"), "does not list config.json"),
    ],
)
def test_lying_manifests_are_refused(
    packed: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    edit_manifest(packed, change)
    with pytest.raises(FormatError, match=message) as caught:
        open_packed(packed)
    assert "convert" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"format":1,"format":1}', b"null"]
)
@pytest.mark.parametrize("name", ["sparity.json", "config.json"])
def test_broken_json_is_refused(packed: Path, name: str, content: bytes) -> None:
    (packed / name).write_bytes(content)
    if name != "sparity.json":
        edit_manifest(packed, lambda m: m["files"][name].update(size=len(content)))
    with pytest.raises(FormatError, match=r"JSON.*convert"):
        open_packed(packed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, _: h[UP].update(data_offsets=[0, 64]), "offsets that do not fit"),
        (lambda h, _: h[UP].update(data_offsets=[-64, 64]), "no valid offsets"),
        (lambda h, _: h[UP].update(data_offsets=[64, 0]), "no valid offsets"),
        (lambda h, _: h[UP].update(data_offsets=[0, 1 << 70]), "offsets that do not fit"),
        (lambda h, _: h[UP].update(data_offsets=[0.0, 64.0]), "no valid offsets"),
        (lambda h, _: h[UP].update(data_offsets=[True, 64]), "no valid offsets"),
        (lambda h, _: h[UP].pop("data_offsets"), "no valid offsets"),
        (lambda h, _: h.update({UP: None}), "no valid offsets"),
        (lambda h, _: h[UP].update(dtype="F32"), "dtype"),
        (lambda h, _: h[UP].update(dtype="I64"), "dtype"),
        (lambda h, _: h[NORM].update(dtype="U8"), "dtype"),
        (lambda h, _: h[NORM].update(shape=[51]), "offsets that do not fit"),
        (lambda h, _: h[NORM].update(shape=[0]), "no valid shape"),
        (lambda h, _: h[NORM].update(shape=[5, 10]), "no valid shape"),
        (lambda h, _: h[UP].update(shape=[1]), "does not fit its layout"),
        (lambda h, _: h.pop(NORM), "offsets that do not fit|should have"),
        (lambda h, _: h.pop("__metadata__"), "lacks the metadata"),
        (lambda h, _: h.update(__metadata__={"sparity_edge": 1}), "lacks the metadata"),
        (lambda _, m: m.update(version=99), "format version 99"),
        (lambda _, m: m.pop("tensors"), "metadata without tensors"),
        (lambda _, m: m["tensors"].pop(UP), "dtype"),
        (lambda _, m: m["tensors"][UP].update(dtype="int2"), "wrongly: dtype 'int2'"),
        (lambda _, m: m["tensors"][UP].update(shape=[50, 90]), "does not fit its layout"),
        (lambda _, m: m["tensors"].update(ghost=m["tensors"][UP]), "does not hold it"),
        (lambda h, _: h.update({"\ud800\x1b": h.pop(NORM)}), "lacks the tensor"),
    ],
)
def test_lying_headers_are_refused(
    packed: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any], message: str
) -> None:
    edit_header(packed, change)
    with pytest.raises(FormatError, match=message) as caught:
        open_packed(packed)
    assert "convert the model again" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_name_that_occurs_twice_is_refused(packed: Path) -> None:
    text = taken_apart(packed / SHARD)[0].strip()
    replace_header(packed, text[:-1] + b',"model.norm.weight":{}}')
    with pytest.raises(FormatError, match="no valid JSON"):
        open_packed(packed)


@pytest.mark.parametrize("length", [0, 1, 7, 1 << 20, 1 << 62, (1 << 64) - 1])
def test_lying_header_lengths_are_refused(packed: Path, length: int) -> None:
    content = (packed / SHARD).read_bytes()
    (packed / SHARD).write_bytes(length.to_bytes(8, "little") + content[8:])
    with pytest.raises(FormatError, match="convert the model again"):
        open_packed(packed)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1, -64])
def test_truncated_shards_are_refused(packed: Path, keep: int) -> None:
    content = (packed / SHARD).read_bytes()[:keep]
    (packed / SHARD).write_bytes(content)
    with pytest.raises(FormatError, match=r"should have .* bytes but has"):
        open_packed(packed)
    resize(packed)  # a manifest that lies along
    with pytest.raises(FormatError, match="convert the model again"):
        open_packed(packed)


@pytest.mark.parametrize(
    ("key", "value"),
    [("vocab_size", 72), ("num_hidden_layers", 3), ("num_hidden_layers", 1), ("hidden_size", 60)],
)
def test_config_and_tensors_must_agree(packed: Path, key: str, value: int) -> None:
    content = json.dumps({**CONFIG, key: value}).encode()
    (packed / "config.json").write_bytes(content)
    edit_manifest(packed, lambda m: m["files"]["config.json"].update(size=len(content)))
    with pytest.raises(FormatError, match="convert the model again"):
        open_packed(packed)


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["sparity.json", SHARD]), st.data())
def test_flipped_bytes_raise_nothing_else(packed: Path, name: str, data: st.DataObject) -> None:
    original = (packed / name).read_bytes()
    damaged = bytearray(original)
    last = len(original) if name == "sparity.json" else 8 + int.from_bytes(original[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, last - 1))] = data.draw(st.integers(0, 255))
    (packed / name).write_bytes(damaged)
    with contextlib.suppress(SparityError):
        open_packed(packed)
        verify_packed(packed)
    (packed / name).write_bytes(original)
