"""The packed folder: writing it whole or not at all, and reading what strangers made of it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import CONFIG, FakeSource, contents, equal

from converters.numbers.layout_bytes import unpack_matrix
from converters.pack import PackOptions, convert
from sparity_edge.errors import FormatError, SparityError
from sparity_edge.packed.folder import open_folder, open_packed, verify_packed
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.packed.manifest import is_packed
from sparity_edge.packed.writer import PackedWriter
from sparity_edge.system.atomic import is_stale, partial_name

SHARD = "model-00001-of-00001.safetensors"
UP = "model.layers.0.mlp.up_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(FakeSource(), tmp_path_factory.mktemp("packs") / "model", PackOptions())


@pytest.fixture
def packed(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))


def write_small(out: Path, force: bool = False, shard_bytes: int = 1 << 30) -> PackedWriter:
    """A writer for two matrices and two vectors that has not been entered."""
    tensors: dict[str, Any] = {
        "v": (7,),
        "a": Layout("f32", "output", (3, 5)),
        "w": (3,),
        "b": Layout("bf16", "input", (3, 5)),
    }
    return PackedWriter(out, tensors, source="s", options={}, force=force, shard_bytes=shard_bytes)


def fill(writer: PackedWriter) -> None:
    for name, spec in writer.tensors.items():
        if isinstance(spec, Layout):
            data = np.arange(spec.nbytes, dtype=np.uint8)
            writer.write(name, data[: spec.row_bytes])
            writer.write(name, data[spec.row_bytes :])
        else:
            writer.write(name, np.ones(spec, dtype=np.float32))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "sparity.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def edit_header(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change header and layouts of the shard, keeping the manifest in step with its size."""
    path = folder / SHARD
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["sparity_edge"])
    before = json.dumps(metadata)
    change(header, metadata)
    if json.dumps(metadata) != before:
        header["__metadata__"]["sparity_edge"] = json.dumps(metadata)
    replace_header(folder, json.dumps(header).encode())


def replace_header(folder: Path, text: bytes) -> None:
    path = folder / SHARD
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = text.ljust(-(-(len(text) + 8) // 64) * 64 - 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    resize(folder)


def resize(folder: Path) -> None:
    edit_manifest(
        folder,
        lambda manifest: manifest["files"][SHARD].update(size=(folder / SHARD).stat().st_size),
    )


# Reading


def test_what_was_written_is_read(pristine: Path) -> None:
    model = open_packed(pristine)
    source = FakeSource()
    assert model.config == CONFIG
    assert model.generation_config == {"eos_token_id": [2, 3]}
    assert model.manifest["source"] == "fake"
    assert model.manifest["options"] == {"dtype": None, "group": None, "layout": "dense"}
    assert set(model.tensors) == set(source.tensors)
    for name, tensor in model.tensors.items():
        if isinstance(tensor, PackedMatrix):
            assert tensor.data.ctypes.data % 64 == 0
            assert tensor.layout.dtype == "int8"
            values = unpack_matrix(tensor.data, tensor.layout)
            assert not isinstance(values, np.ndarray)
            assert np.abs(values.dequantize() - source.tensors[name]).max() < 0.02
        else:
            assert tensor.ctypes.data % 64 == 0
            assert equal(tensor, source.tensors[name])
    assert model.nbytes == sum(stored.nbytes for stored in open_folder(pristine).tensors.values())
    verify_packed(pristine)


def test_stock_safetensors_reads_a_shard(pristine: Path) -> None:
    from safetensors import numpy

    tensors = numpy.load_file(pristine / SHARD)
    model = open_packed(pristine)
    assert set(tensors) == set(model.tensors)
    for name, tensor in model.tensors.items():
        data = tensor.data if isinstance(tensor, PackedMatrix) else tensor
        assert equal(tensors[name], data)


def test_several_shards(tmp_path: Path) -> None:
    from safetensors import numpy

    with write_small(tmp_path / "out", shard_bytes=1) as writer:
        fill(writer)
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert shards == [f"model-{index:05d}-of-00004.safetensors" for index in range(1, 5)]
    found = [list(numpy.load_file(tmp_path / "out" / name)) for name in shards]
    assert found == [["a"], ["b"], ["v"], ["w"]]


def test_verify_finds_a_changed_bit_and_tells_its_progress(packed: Path) -> None:
    calls: list[tuple[int, int]] = []
    verify_packed(packed, lambda _, done, total: calls.append((done, total)))
    assert (
        calls[-1][0]
        == calls[-1][1]
        == sum(path.stat().st_size for path in packed.iterdir() if path.name != "sparity.json")
    )
    content = bytearray((packed / SHARD).read_bytes())
    content[-1] ^= 1
    (packed / SHARD).write_bytes(content)
    open_packed(packed)
    with pytest.raises(FormatError, match=r"does not match its SHA-256.*convert"):
        verify_packed(packed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="other"), "not the manifest"),
        (lambda m: m.update(version=1), r"has format version 1 and this program reads version 6"),
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
        (lambda _, m: m.update(version=7), "format version 7"),
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
    content = (packed / SHARD).read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length].strip()
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


def test_what_is_not_packed(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", "a\0b", "x" * 5000):
        assert not is_packed(path)
        with pytest.raises(FormatError, match=r"is not a packed model.*sparity-edge convert"):
            open_packed(path)


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


# Writing


def test_an_existing_folder_is_kept_without_force(packed: Path) -> None:
    before = contents(packed)
    with pytest.raises(FormatError, match=r"exists already.*--force"), write_small(packed):
        pass
    assert contents(packed) == before


@pytest.mark.parametrize("kind", ["packed", "empty", "damaged", "litter"])
def test_force_replaces_what_is_ours(packed: Path, kind: str) -> None:
    if kind == "empty":
        shutil.rmtree(packed)
        packed.mkdir()
    elif kind == "damaged":
        (packed / SHARD).unlink()
    elif kind == "litter":
        (packed / ".DS_Store").touch()
    with write_small(packed, force=True) as writer:
        fill(writer)
    assert sorted(contents(packed)) == [SHARD, "sparity.json"]
    assert names(packed.parent) == ["model"]


@pytest.mark.parametrize("kind", ["file", "foreign", "mixed", "foreign manifest"])
def test_force_destroys_nothing_else(packed: Path, kind: str) -> None:
    if kind == "file":
        shutil.rmtree(packed)
        packed.write_text("precious")
    elif kind == "foreign":
        (packed / "sparity.json").unlink()
    elif kind == "mixed":
        (packed / "notes.txt").write_text("precious")
    else:
        (packed / "sparity.json").write_text("{}")
    before = packed.read_bytes() if packed.is_file() else contents(packed)
    with pytest.raises(FormatError), write_small(packed, force=True):
        pass
    assert (packed.read_bytes() if packed.is_file() else contents(packed)) == before


def test_the_target_of_a_link_is_replaced(packed: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    try:
        link.symlink_to(packed, target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    with write_small(link, force=True) as writer:
        fill(writer)
    assert link.is_symlink()
    assert (packed / "sparity.json").is_file()


def test_parents_are_made(tmp_path: Path) -> None:
    with write_small(tmp_path / "a" / "b") as writer:
        fill(writer)
    assert is_packed(tmp_path / "a" / "b")


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(FormatError, match=r"cannot be written: .*; choose another folder\.$"),
        write_small(tmp_path / "file" / "out"),
    ):
        pass


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "permission is denied"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "choose another folder"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "mkdir"])
def test_failing_system_calls_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "mkdir", fail)
    with (
        pytest.raises(FormatError, match=f"cannot be written: .*{message}"),
        write_small(tmp_path / "out") as writer,
    ):
        fill(writer)
    assert names(tmp_path) == []


class FullDisk:
    """A file that takes `room` bytes; closing it fails as well, as buffered files do."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: Any) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._file.write(data))

    def close(self) -> None:
        self._file.close()
        raise OSError(errno.ENOSPC, "No space left on device")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_up(path: Path, *args: Any) -> Any:
        return FullDisk(original(path, *args), 5000)

    original = Path.open
    monkeypatch.setattr(Path, "open", fill_up)
    with pytest.raises(FormatError, match="the disk is full"):
        convert(FakeSource(), tmp_path / "out", PackOptions())
    assert names(tmp_path) == []


def test_too_little_room_is_seen_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100})()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FormatError, match=r"0\.0 GB free"), write_small(tmp_path / "out"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupt_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupt(_: str, done: int, total: int) -> None:
        if done > total // 2:
            raise error

    with pytest.raises(error):
        convert(FakeSource(), tmp_path / "out", PackOptions(), progress=interrupt)
    assert names(tmp_path) == []


def test_a_failing_swap_puts_the_former_folder_back(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_place(path: Path, target: Any) -> Any:
        if target == packed and failures.pop():
            raise OSError(errno.EACCES, "in use")
        return original(path, target)

    original, failures, before = Path.rename, [False, True], contents(packed)
    monkeypatch.setattr(Path, "rename", fail_to_place)
    with (
        pytest.raises(FormatError, match="permission is denied"),
        write_small(packed, force=True) as writer,
    ):
        fill(writer)
    assert contents(packed) == before
    assert names(packed.parent) == ["model"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("existing", [False, True])
def test_a_killed_run_leaves_no_model(packed: Path, existing: bool) -> None:
    out = packed if existing else packed.parent / "other"
    before = contents(packed)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            KILLED.format(tests=str(Path(__file__).resolve().parents[1]), out=str(out)),
        ],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"half\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    left = sorted(path.name for path in packed.parent.iterdir())
    hidden = [name for name in left if name.startswith(f".{out.name}.partial-")]
    assert len(hidden) == 1
    assert left == sorted([*hidden, "model"])
    assert not is_packed(packed.parent / hidden[0])
    assert contents(packed) == before
    with write_small(out, force=existing) as writer:
        fill(writer)
    assert names(packed.parent) == sorted({"model", out.name})


KILLED = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, {tests!r})
    from packing import FakeSource
    from converters.pack import PackOptions, convert

    def stop(label, done, total):
        if done > total // 2:
            print("half", flush=True)
            time.sleep(60)

    convert(FakeSource(), {out!r}, PackOptions(), force=True, progress=stop)
    """
)


def test_what_counts_as_stale(tmp_path: Path) -> None:
    alive = tmp_path / partial_name("x")
    host = alive.name.split("-")[1]
    dead = tmp_path / f".x.partial-{host}-{2**22 + 1}-00000000"
    foreign = tmp_path / ".x.partial-00000000-1-00000000"
    other = tmp_path / ".x.partial-notes"
    for path in (alive, dead, foreign, other):
        path.mkdir()
    assert [is_stale(path) for path in (alive, dead, foreign, other)] == [
        False,
        True,
        False,
        False,
    ]
    old = time.time() - 48 * 3600
    os.utime(foreign, (old, old))
    assert is_stale(foreign)
