"""The pack cache: warm starts, sources that change, damage, and two processes at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from packing import INT4, FakeSource, contents

from converters import pack_cache, store
from converters.pack import convert
from converters.pack_options import PackOptions
from converters.ready import prepare_for
from sparity_edge.errors import FormatError, OptionError, SourceError
from sparity_edge.model.opening import verify_packed
from sparity_edge.packed.manifest import is_packed
from sparity_edge.progress import CallContext

TESTS = str(Path(__file__).resolve().parents[1])
pytestmark = pytest.mark.usefixtures("root")


def test_a_name_is_packed_once_and_then_needs_no_source(opened: list[str]) -> None:
    said: list[str] = []
    first = store.prepare("org/name", PackOptions(), CallContext(notify=said.append))
    assert is_packed(first)
    assert len(said) == 1
    assert "org/name" in said[0]
    assert store.prepare("org/name", PackOptions(), CallContext(notify=said.append)) == first
    assert opened == ["org/name"]
    assert len(said) == 1
    other = store.prepare("org/name", PackOptions("int4"), CallContext(notify=said.append))
    assert other != first
    assert len(said) == 2


@pytest.mark.usefixtures("opened")
def test_a_warm_start_takes_milliseconds() -> None:
    folder = store.prepare("org/name", PackOptions())
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert store.prepare("org/name", PackOptions()) == folder
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02


def test_importing_the_store_imports_no_source() -> None:
    code = (
        "import sys, converters.store, converters.pack;"
        "heavy = {'converters.sources', 'gguf', 'numba', 'tokenizers', 'huggingface_hub'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_a_local_file_is_packed_again_when_it_changes(tmp_path: Path, opened: list[str]) -> None:
    file = tmp_path / "m.gguf"
    file.write_text("one")
    first = store.prepare(str(file), PackOptions())
    assert store.prepare(str(file), PackOptions()) == first
    assert len(opened) == 1
    file.write_text("other")
    second = store.prepare(str(file), PackOptions())
    assert second != first
    file.write_text("one")
    os.utime(file, ns=(1, 1))
    assert store.prepare(str(file), PackOptions()) == first  # same content: not packed again
    assert len(opened) == 3
    assert len(pack_cache.entries()) == 2


def test_a_split_model_is_looked_at_part_by_part(tmp_path: Path, opened: list[str]) -> None:
    first, second = (tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2))
    for file in (first, second):
        file.write_text("one")
    store.prepare(str(first), PackOptions())
    store.prepare(str(first), PackOptions())
    second.write_text("other")
    store.prepare(str(first), PackOptions())
    assert opened == [str(first)] * 2


def test_a_folder_is_looked_at_file_by_file(tmp_path: Path, opened: list[str]) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(IsADirectoryError):  # the fake reads files only; asked it was
        store.prepare(str(folder), PackOptions())
    assert opened == [str(folder)]


def test_a_packed_folder_is_used_as_it_is(tmp_path: Path, opened: list[str], root: Path) -> None:
    folder = convert(FakeSource(), tmp_path / "mine", PackOptions("int8", layout="neurons"))
    for options in (
        PackOptions(),
        PackOptions("int8"),
        PackOptions("int8", 32),
        PackOptions(layout="neurons"),
    ):
        assert store.prepare(str(folder), options) == folder
    assert opened == []
    assert not root.exists()


def test_bundles_and_their_halves_are_told_apart(tmp_path: Path) -> None:
    source = FakeSource()
    for layout, other in (("input", "mixed"), ("mixed", "input"), ("neurons", "mixed")):
        folder = convert(source, tmp_path / f"{layout}-{other}", PackOptions(layout=layout))
        assert store.prepare(str(folder), PackOptions(layout=layout)) == folder
        with pytest.raises(OptionError, match=f"not stored in layout {other}"):
            store.prepare(str(folder), PackOptions(layout=other))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (PackOptions("int4"), "sparity-edge convert fake OUT --dtype int4"),
        (PackOptions("int8", 64), "sparity-edge convert fake OUT --dtype int8 --group 64"),
        (PackOptions("f32"), "sparity-edge convert fake OUT --dtype f32"),
        (PackOptions(layout="input"), "mine OUT --layout input"),
        (PackOptions(layout="mixed"), "mine OUT --layout mixed"),
    ],
)
def test_a_packed_folder_that_disagrees_is_refused(
    tmp_path: Path, options: PackOptions, words: str
) -> None:
    folder = convert(FakeSource(), tmp_path / "mine", PackOptions("int8"))
    with pytest.raises(OptionError) as caught:
        store.prepare(str(folder), options)
    assert words in str(caught.value)


def test_a_packed_folder_is_a_source_too(tmp_path: Path) -> None:
    folder = convert(FakeSource({"up_proj": INT4}), tmp_path / "mine", PackOptions())
    with store.open_any(str(folder)) as source:
        assert source.native("model.layers.0.mlp.up_proj.weight") == INT4


@pytest.mark.parametrize(
    "damage", ["request", "list", "key", "escape", "shard", "manifest", "gone"]
)
def test_damage_in_the_cache_is_repaired(root: Path, opened: list[str], damage: str) -> None:
    folder = store.prepare("org/name", PackOptions())
    before = contents(folder)
    request = next((root / "requests").iterdir())
    if damage == "request":
        request.write_bytes(b"\xff" * 100)
    elif damage == "list":
        request.write_bytes(b"[" * 100_000)
    elif damage == "key":
        request.write_text('{"key": 1}')
    elif damage == "escape":
        request.write_text('{"key": "../../../etc"}')
    elif damage == "shard":
        shard = next(folder.glob("*.safetensors"))
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "manifest":
        (folder / "sparity.json").write_bytes(b"{")
    else:
        shutil.rmtree(folder)
    assert store.prepare("org/name", PackOptions()) == folder
    assert contents(folder) == before
    assert len(opened) == 2


@pytest.mark.usefixtures("opened")
def test_a_source_that_fails_leaves_nothing(root: Path) -> None:
    with pytest.raises(SourceError):
        store.prepare("unreachable", PackOptions())
    assert not root.exists()


@pytest.mark.usefixtures("opened")
def test_a_cache_that_cannot_be_written_names_the_way_out(root: Path) -> None:
    root.write_text("in the way")
    with pytest.raises(FormatError, match=r"cannot be written.*SPARITY_EDGE_CACHE"):
        store.prepare("org/name", PackOptions())


@pytest.mark.usefixtures("opened")
def test_names_that_no_system_knows() -> None:
    for name in ("a\0b", "x" * 3000, "~nobody-has-this-name/x"):
        assert is_packed(store.prepare(name, PackOptions()))


RACE = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, {tests!r})
    import converters.sources
    from converters import store
    from converters.pack_options import PackOptions
    from packing import FakeSource

    converters.sources.open_source = lambda model, _: FakeSource()
    print("ready", flush=True)
    sys.stdin.readline()
    for index in range(4):
        dtype = ["f32", "bf16", "int8", "int4"][index]
        print(store.prepare("org/name", PackOptions(dtype)))
    """
)


def test_two_processes_pack_the_same_model(root: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RACE.format(tests=TESTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert outputs[0] == outputs[1]
    folders = outputs[0].split()
    assert len(folders) == 4
    for folder in folders:
        verify_packed(folder)
    assert sorted(path.name for path in (root / "packed").iterdir()) == sorted(
        Path(folder).name for folder in folders
    )


def test_a_plan_that_no_method_makes_is_refused_before_anything_is_made() -> None:
    said: list[str] = []
    context = CallContext(notify=said.append)
    with pytest.raises(OptionError, match=r"no plan 'chees'; .* Did you mean chess\?"):
        prepare_for("nobody/nothing", True, context, plan="chees")
    assert said == []
