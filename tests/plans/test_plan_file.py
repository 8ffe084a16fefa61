"""Plan files: nothing changes on the way through one, and what strangers made of it is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import INT4, FakeSource, contents
from plan_families import family

from converters.pack import PackOptions, convert
from converters.sources.packed import PackedSource
from sparity_edge.arrays import aligned_empty
from sparity_edge.choices import LAYOUTS
from sparity_edge.errors import FormatError, OptionError, SparityError
from sparity_edge.packed.folder import open_packed, verify_packed
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.packed.manifest import LOCK_FILE
from sparity_edge.packed.writer import PackedWriter
from sparity_edge.plans import plan_file
from sparity_edge.plans.plan import PlanFamily
from sparity_edge.plans.plan_file import add_plan, fingerprint, plan_names, read_plan, remove_plan
from sparity_edge.system import atomic

NAME = "by-hand"
FILE = f"plan-{NAME}.safetensors"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of layout `neurons` with one plan that has everything a plan can have."""
    folder = tmp_path_factory.mktemp("plans") / "model"
    convert(FakeSource(), folder, PackOptions(layout="neurons"))
    add_plan(folder, family(open_packed(folder), "neurons", weights=True, centres=True))
    return folder


@pytest.fixture
def packed(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))


def assert_same(one: PlanFamily, other: PlanFamily) -> None:
    for field in dataclasses.fields(PlanFamily):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("tables", "weights", "centres", "predictors", "gains"):
            assert a.keys() == b.keys()
            assert all(np.array_equal(a[piece], b[piece]) for piece in a)
        elif field.name == "means":
            assert [each and each.layout for each in a] == [each and each.layout for each in b]
            assert all(np.array_equal(c.data, d.data) for c, d in zip(a, b) if c is not None)
        else:
            assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def changed(folder: Path, **fields: Any) -> PlanFamily:
    return dataclasses.replace(read_plan(folder, NAME), **fields)


def edit_file(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change header and fields of the plan file; the manifest is not told."""
    path = folder / FILE
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    fields = json.loads(header["__metadata__"]["sparity_edge_plan"])
    before = json.dumps(fields)
    change(header, fields)
    if json.dumps(fields) != before:
        header["__metadata__"]["sparity_edge_plan"] = json.dumps(fields)
    text = json.dumps(header).encode()
    text = text.ljust(-(-(len(text) + 8) // 64) * 64 - 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def edit_array(folder: Path, name: str, index: int, value: float) -> None:
    path = folder / FILE
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    start, stop = json.loads(content[8 : 8 + length])[name]["data_offsets"]
    array = np.frombuffer(content, "<f4", (stop - start) // 4, 8 + length + start)
    array[index] = value
    path.write_bytes(content)


# There and back


@pytest.mark.parametrize("layout", ["input", "neurons", "mixed"])
@pytest.mark.parametrize("rich", [False, True])
def test_what_was_added_is_read(tmp_path: Path, layout: str, rich: bool) -> None:
    folder = convert(FakeSource(), tmp_path / "model", PackOptions(layout=layout))
    assert plan_names(folder) == []
    made = family(open_packed(folder), layout, weights=rich, centres=rich)
    add_plan(folder, made)
    assert plan_names(folder) == [NAME]
    found = read_plan(folder, NAME)
    assert_same(found, made)
    assert all(mean is None or mean.data.ctypes.data % 64 == 0 for mean in found.means)
    verify_packed(folder)


def test_predictors_are_read(tmp_path: Path) -> None:
    folder = convert(FakeSource(), tmp_path / "model", PackOptions(layout="mixed"))
    made = family(open_packed(folder), "mixed", rule="scaled", weights=True)
    add_plan(folder, made)
    assert_same(read_plan(folder, NAME), made)
    edit_array(folder, "predictors.q_proj", 1, np.nan)
    with pytest.raises(FormatError, match="not finite"):
        read_plan(folder, NAME)


def test_gains_are_read(tmp_path: Path) -> None:
    folder = convert(FakeSource(), tmp_path / "model", PackOptions(layout="mixed"))
    made = family(open_packed(folder), "mixed", gains=True)
    add_plan(folder, made)
    assert_same(read_plan(folder, NAME), made)
    edit_array(folder, "gains.q_proj", 1, np.nan)
    with pytest.raises(FormatError, match="not finite"):
        read_plan(folder, NAME)
    short = {"q_proj": made.gains["q_proj"][:, 1:]}
    with pytest.raises(FormatError, match="hidden size"):
        add_plan(folder, dataclasses.replace(made, name="short", gains=short))


def test_matrices_of_some_layers_in_any_format(packed: Path) -> None:
    layout = Layout("int4", "input", (50, 50), 32, True)
    data = aligned_empty(layout.nbytes)
    data[:] = np.arange(layout.nbytes)
    means = (None, PackedMatrix(layout, data))
    made = changed(packed, means=means, centres={}, notes={"kl": [0.5, None]})
    add_plan(packed, made)
    assert_same(read_plan(packed, NAME), made)


def test_numbers_of_double_precision_are_rounded(packed: Path) -> None:
    made = changed(packed, levels=np.array([0, 0.1, 0.2, 0.9]), active=np.array([1, 0.9, 0.8, 0.1]))
    add_plan(packed, made)
    found = read_plan(packed, NAME)
    assert found.levels.dtype == found.active.dtype == np.float32
    np.testing.assert_allclose(found.levels, made.levels, rtol=1e-7)
    before = contents(packed)
    close = np.array([0, 0.1, 0.1 + 1e-12, 0.9])
    with pytest.raises(FormatError, match="do not rise"):
        add_plan(packed, changed(packed, levels=close))
    weights = {"q_proj": np.full((2, 50), 1e300)}
    with pytest.raises(FormatError, match="not finite"):
        add_plan(packed, changed(packed, weights=weights))
    assert contents(packed) == before


def test_several_plans_are_listed_replaced_and_removed(packed: Path) -> None:
    add_plan(packed, changed(packed, name="auto"))
    add_plan(packed, changed(packed, name="auto", method="newer"))
    assert plan_names(packed) == ["auto", NAME]
    assert read_plan(packed, "auto").method == "newer"
    verify_packed(packed)
    remove_plan(packed, NAME)
    assert plan_names(packed) == ["auto"]
    assert not (packed / FILE).exists()
    verify_packed(packed)
    with pytest.raises(OptionError, match=r"no plan 'by-hand'; it carries auto\.$"):
        read_plan(packed, NAME)
    remove_plan(packed, "auto")
    for call in (read_plan, remove_plan):
        with pytest.raises(OptionError, match=r"no plan 'auto'; sparity-edge calibrate makes one"):
            call(packed, "auto")


@pytest.mark.parametrize("name", ["", "A", "a_b", "../x", "x" * 41, "a\n", "é"])
def test_names_are_plain(packed: Path, name: str) -> None:
    before = contents(packed)
    with pytest.raises(OptionError, match="1 to 40 of a-z"):
        add_plan(packed, changed(packed, name=name))
    with pytest.raises(OptionError):
        read_plan(packed, name)
    assert contents(packed) == before


# Fingerprints


def test_layout_and_number_format_leave_the_fingerprint(tmp_path: Path) -> None:
    packs = [
        (FakeSource(), PackOptions("f32")),
        (FakeSource(), PackOptions("int4", layout="mixed")),
        (FakeSource({"down_proj": INT4}), PackOptions(layout="input")),
    ]
    prints = {
        fingerprint(open_packed(convert(source, tmp_path / str(index), options)))
        for index, (source, options) in enumerate(packs)
    }
    assert len(prints) == 1
    assert len(prints.pop()) == 64


@pytest.mark.parametrize("change", ["norm", "bias", "theta", "context", "epsilon"])
def test_what_the_fingerprint_depends_on(tmp_path: Path, pristine: Path, change: str) -> None:
    source = FakeSource()
    if change == "norm":
        source.tensors["model.norm.weight"][3] += 1
    elif change == "bias":
        source.tensors["model.layers.1.self_attn.q_proj.bias"][0] += 1
    elif change == "theta":
        source.config["rope_theta"] = 20000.0
    elif change == "context":
        source.config["max_position_embeddings"] = 77
    else:
        source.config["rms_norm_eps"] = float(np.float32(1e-6))  # as a GGUF file has it
    folder = convert(source, tmp_path / "out", PackOptions())
    same = change in ("context", "epsilon")
    assert (fingerprint(open_packed(folder)) == read_plan(pristine, NAME).model) == same
    made = read_plan(pristine, NAME)
    with contextlib.nullcontext() if same else pytest.raises(FormatError, match="another model"):
        add_plan(folder, made)
    assert plan_names(folder) == ([NAME] if same else [])


def test_a_plan_of_another_model_is_refused(packed: Path) -> None:
    edit_file(packed, lambda _, fields: fields.update(model="0" * 64))
    with pytest.raises(FormatError, match=f"{FILE}: this plan is for another model; calibrate"):
        read_plan(packed, NAME)


# Damage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, _: h["__metadata__"].pop("sparity_edge_plan"), "lacks the metadata of a plan"),
        (lambda h, _: h.pop("__metadata__"), "lacks the metadata"),
        (lambda _, f: f.update(version=3), "has plan version 3"),
        (lambda _, f: f.update(version=True), "version that is not of type int"),
        (lambda _, f: f.pop("rule"), "exactly the fields"),
        (lambda _, f: f.update(more=1), "exactly the fields"),
        (lambda _, f: f.update(name="other"), "holds a plan named 'other'"),
        (lambda _, f: f.update(name=1), "name that is not of type str"),
        (lambda _, f: f.update(notes=[]), "notes that is not of type dict"),
        (lambda _, f: f.update(layout="chess"), "unknown layout 'chess'"),
        (lambda _, f: f.update(rule="best"), f"{FILE}: .*rule 'best'"),
        (lambda h, _: h.update({"tables.x": h.pop("tables.o_proj")}), "is no part of a plan"),
        (lambda h, _: h.update({"tables": h.pop("tables.o_proj")}), "is no part of a plan"),
        (lambda h, _: h.update({"levels.x": h.pop("levels")}), "is no part of a plan"),
        (lambda h, _: h.update({"tables.up_proj": h.pop("levels")}), "lacks levels"),
        (lambda h, _: h.update({"weights.up_proj": h.pop("tables.o_proj")}), "does not thin it"),
        (lambda h, _: h["levels"].update(shape=[5]), "do not fit its shape"),
    ],
)
def test_lying_plans_are_refused(
    packed: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any], message: str
) -> None:
    edit_file(packed, change)
    with pytest.raises(FormatError, match=message) as caught:
        read_plan(packed, NAME)
    assert str(packed / FILE) in str(caught.value)
    assert "again" in str(caught.value)
    open_packed(packed)
    with pytest.raises(FormatError, match=rf"{FILE} .*; remove plan {NAME} or make it again"):
        verify_packed(packed)


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("levels", 0, 0.1, "do not rise from 0"),
        ("levels", 3, 0.95, "above 0.9"),
        ("active", 0, 0.99, "do not fall from 1"),
        ("active", 2, np.nan, "do not fall from 1"),
        ("tables.neurons", -1, np.inf, "negative or not dense"),
        ("tables.neurons", 0, 0.5, "negative or not dense"),
        ("weights.q_proj", 7, 0.0, "not above 0"),
        ("centres.o_proj", 7, np.nan, "not finite"),
    ],
)
def test_wrong_numbers_are_refused(
    packed: Path, name: str, index: int, value: float, message: str
) -> None:
    edit_array(packed, name, index, value)
    with pytest.raises(FormatError, match=f"{FILE}: .*{message}.*calibrate the model again"):
        read_plan(packed, NAME)


def test_centred_neurons_need_their_folded_matrix(packed: Path) -> None:
    made = read_plan(packed, NAME)
    for means in ((), (made.means[0], None)):
        with pytest.raises(FormatError, match="a folded matrix is missing"):
            changed(packed, means=means)
    some = made.centres["neurons"].copy()
    some[1] = 0
    add_plan(packed, changed(packed, means=(made.means[0], None), centres={"neurons": some}))
    assert read_plan(packed, NAME).means[1] is None


def test_a_share_dropped_is_at_most_all(packed: Path) -> None:
    add_plan(packed, changed(packed, rule="top"))
    edit_array(packed, "tables.q_proj", -1, 1.5)
    with pytest.raises(FormatError, match="drops more than there is"):
        read_plan(packed, NAME)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tables": {"q_proj": np.outer([0, 1, 2, 3], np.ones(3))}}, "for 3 layers, not 2"),
        ({"weights": {"q_proj": np.ones((2, 49))}}, "other channels of q_proj"),
        ({"centres": {"neurons": np.ones((2, 50))}}, "other channels of neurons"),
        ({"means": (None, "wide")}, r"not of shape \[50, 50\]"),
    ],
)
def test_sizes_of_another_model_are_refused(
    packed: Path, fields: dict[str, Any], message: str
) -> None:
    if "means" in fields:
        layout = Layout("f32", "output", (50, 51))
        wide = PackedMatrix(layout, aligned_empty(layout.nbytes))
        fields = {"means": (None, wide), "centres": {}}
    if "tables" in fields:
        fields |= {"weights": {}, "centres": {}, "means": ()}
    before = contents(packed)
    with pytest.raises(FormatError, match=message):
        add_plan(packed, changed(packed, **fields))
    assert contents(packed) == before


def test_files_for_another_number_of_layers(packed: Path) -> None:
    def rename(header: dict[str, Any], _: dict[str, Any]) -> None:
        layouts = header["__metadata__"]["sparity_edge"]
        header["__metadata__"]["sparity_edge"] = layouts.replace("means.1", "means.2")
        header["means.2"] = header.pop("means.1")

    edit_file(packed, rename)
    with pytest.raises(FormatError, match=r"'means.2', which is no part of a plan for a model"):
        read_plan(packed, NAME)


@pytest.mark.parametrize("damage", ["gone", "empty", "short", "long", "folder"])
def test_a_damaged_plan_stops_only_those_who_ask_for_it(packed: Path, damage: str) -> None:
    path = packed / FILE
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"empty": b"", "short": content[:-4], "long": content + bytes(4)}[damage])
    open_packed(packed)
    assert plan_names(packed) == [NAME]
    for call in (lambda: read_plan(packed, NAME), lambda: verify_packed(packed)):
        with pytest.raises(FormatError, match=rf"{FILE} .*; remove plan {NAME} or make it again"):
            call()
    if damage != "folder":
        remove_plan(packed, NAME)
        verify_packed(packed)


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_flipped_bits_raise_nothing_else(packed: Path, data: st.DataObject) -> None:
    original = (packed / FILE).read_bytes()
    header = 8 + int.from_bytes(original[:8], "little")
    last = data.draw(st.sampled_from([header, len(original)]))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, last - 1))
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    (packed / FILE).write_bytes(damaged)
    with contextlib.suppress(SparityError):
        read_plan(packed, NAME)
    with contextlib.suppress(SparityError):
        verify_packed(packed)
    (packed / FILE).write_bytes(original)


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_cuts_and_padding_raise_nothing_else(packed: Path, data: st.DataObject) -> None:
    original = (packed / FILE).read_bytes()
    size = data.draw(st.integers(0, len(original) + 200))
    (packed / FILE).write_bytes(
        original[:size].ljust(size, data.draw(st.binary(min_size=1, max_size=1)))
    )
    with contextlib.nullcontext() if size == len(original) else pytest.raises(FormatError):
        read_plan(packed, NAME)
    (packed / FILE).write_bytes(original)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_wrong_values_in_the_header_raise_nothing_else(packed: Path, data: st.DataObject) -> None:
    def change(header: dict[str, Any], fields: dict[str, Any]) -> None:
        place = data.draw(st.sampled_from([header, fields, *header.values()]))
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
        if "__metadata__" not in header or not isinstance(header["__metadata__"], dict):
            fields.clear()
            header["__metadata__"] = {}

    original = (packed / FILE).read_bytes()
    edit_file(packed, change)
    with contextlib.suppress(SparityError):
        read_plan(packed, NAME)
    (packed / FILE).write_bytes(original)


# Writing


KILLED = textwrap.dedent(
    """
    import os, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from sparity_edge.plans import plan_file
    from sparity_edge.system import atomic

    def stop(path, blocks):
        if path.name == {file!r}:
            return original(path, stop_within(blocks) if {step!r} == "plan" else blocks)
        print("there", flush=True)
        os.kill(os.getpid(), 9)

    def stop_within(blocks):
        yield next(iter(blocks))
        os.kill(os.getpid(), 9)

    original, plan_file.replace_file = plan_file.replace_file, stop
    folder = Path({folder!r})
    family = plan_file.read_plan(folder, "by-hand")
    import dataclasses
    plan_file.add_plan(folder, dataclasses.replace(family, name={name!r}, method="newer"))
    """
)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("step", ["plan", "manifest"])
@pytest.mark.parametrize("name", ["auto", NAME])
def test_a_killed_run_leaves_a_usable_folder(packed: Path, step: str, name: str) -> None:
    code = KILLED.format(
        tests=str(Path(__file__).resolve().parents[1]),
        file=f"plan-{name}.safetensors",
        step=step,
        folder=str(packed),
        name=name,
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], check=False, env=env, timeout=60)
    assert run.returncode == -signal.SIGKILL
    open_packed(packed)
    assert plan_names(packed) == [NAME]
    newer = name == NAME and step == "manifest"
    assert read_plan(packed, NAME).method == ("newer" if newer else "numbers from a fixed seed")
    add_plan(packed, changed(packed, name=name))
    verify_packed(packed)
    hidden = {path.name for path in packed.iterdir() if path.name.startswith(".")}
    assert hidden <= {LOCK_FILE}


def test_what_a_killed_run_left_does_not_keep_a_folder_from_being_replaced(packed: Path) -> None:
    host = atomic.partial_name("x").split("-")[1]
    (packed / f".{FILE}.partial-{host}-{2**22 + 1}-00000000").touch()
    tensors: dict[str, Any] = {"v": (1,)}
    with PackedWriter(packed, tensors, source="s", options={}, force=True) as writer:
        writer.write("v", np.ones(1, dtype=np.float32))
    assert plan_names(packed) == []


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_failing_disk_is_one_sentence(
    packed: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*arguments: Any, **_: Any) -> Any:
        if call == "fsync" or "x" in str(arguments[1:2]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    made, before, original = changed(packed, method="newer"), contents(packed), Path.open
    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    with pytest.raises(FormatError, match="cannot be written: the disk is full"):
        add_plan(packed, made)
    monkeypatch.undo()
    assert contents(packed) == before


# Conversion


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plans_go_along_while_the_numbers_stay(packed: Path, layout: str) -> None:
    out = packed.parent / "out"
    with PackedSource(packed) as source:
        convert(source, out, PackOptions(layout=layout))
    assert (out / FILE).read_bytes() == (packed / FILE).read_bytes()
    verify_packed(out)
    assert_same(read_plan(out, NAME), read_plan(packed, NAME))


@pytest.mark.parametrize(
    "options", [PackOptions("int4"), PackOptions(group=64), PackOptions("int8")]
)
def test_plans_stay_behind_when_numbers_change(packed: Path, options: PackOptions) -> None:
    out = packed.parent / "out"
    with PackedSource(packed) as source:
        convert(source, out, options)
    same = options.dtype == "int8" or options.group == 64  # integers are kept as they are
    assert plan_names(out) == ([NAME] if same else [])


def test_a_damaged_plan_does_not_go_along(packed: Path) -> None:
    edit_array(packed, "levels", 1, 0.2)
    with PackedSource(packed) as source, pytest.raises(FormatError, match=r"SHA-256 .*remove plan"):
        convert(source, packed.parent / "out", PackOptions())
    assert not (packed.parent / "out").exists()


# Between reading and writing the list there is time for others to do the same.
ADDER = """
import dataclasses, sys, time
from pathlib import Path
from sparity_edge.plans import plan_file
from sparity_edge.plans.plan_file import add_plan, read_plan
read_now = plan_file.read_manifest
def read_slowly(folder):
    manifest = read_now(folder)
    time.sleep(0.01)
    return manifest
plan_file.read_manifest = read_slowly
folder = Path({folder!r})
plan = read_plan(folder, "by-hand")
print("ready", flush=True)
sys.stdin.readline()
for number in range(4):
    add_plan(folder, dataclasses.replace(plan, name=f"{name}-{{number}}"))
    add_plan(folder, dataclasses.replace(plan, name="shared", method="{name}" * 100))
"""


def test_processes_that_add_plans_at_once_lose_none(packed: Path) -> None:
    names = ("a", "b", "c")
    adders = [
        subprocess.Popen(
            [sys.executable, "-c", ADDER.format(folder=str(packed), name=name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for name in names
    ]
    for adder in adders:
        assert adder.stdout
        assert adder.stdout.readline() == "ready\n"
    for adder in adders:
        assert adder.stdin
        adder.stdin.write("\n")
        adder.stdin.flush()
    for adder in adders:
        adder.communicate(timeout=60)
    assert [adder.returncode for adder in adders] == [0, 0, 0]
    added = {f"{name}-{number}" for name in names for number in range(4)}
    assert set(plan_names(packed)) == {NAME, "shared", *added}
    verify_packed(packed)


def test_waiting_for_another_process_ends(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    monkeypatch.setattr(plan_file, "LOCK_SECONDS", 0.1)
    plan = changed(packed, name="late")
    with filelock.FileLock(packed / LOCK_FILE):
        with pytest.raises(FormatError, match="by another process"):
            add_plan(packed, plan)
        with pytest.raises(FormatError, match="by another process"):
            remove_plan(packed, NAME)
    assert plan_names(packed) == [NAME]
    add_plan(packed, plan)
    assert plan_names(packed) == [NAME, "late"]
