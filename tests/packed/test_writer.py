"""Writing a packed folder: whole or not at all, whatever fails or kills it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from packed_files import SHARD, fill, names, write_small
from packing import FakeSource, contents

from converters.pack import convert
from converters.pack_options import PackOptions
from sparity_edge.errors import FormatError
from sparity_edge.packed.manifest import is_packed
from sparity_edge.system import atomic


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
    with (
        pytest.raises(FormatError, match="the disk has 100 bytes free"),
        write_small(tmp_path / "out"),
    ):
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
    monkeypatch.setattr(atomic, "exchange", lambda *_: False)  # as on Windows
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
    from converters.pack import convert
    from converters.pack_options import PackOptions

    def stop(label, done, total):
        if done > total // 2:
            print("half", flush=True)
            time.sleep(60)

    convert(FakeSource(), {out!r}, PackOptions(), force=True, progress=stop)
    """
)
