"""Calibrations that are interrupted go on where they stopped, and give the same plan."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from packing import pack_folder

from converters import pack_cache
from converters.calibrate import calibrate
from converters.calibration import checkpoint as checkpoints
from converters.calibration.checkpoint import Checkpoint, checkpoint
from converters.calibration.resuming import counted_from, gradients_from
from converters.methods.fits_kept import fits_from
from sparity_edge.system.folders import calibrations_root, work_folders
from sparity_edge.system.leftovers import GIVEN_UP_SECONDS, held, leftovers

TOKENS = 5 * 256


@pytest.fixture
def folder(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A packed folder of the test's own; checkpoints are written at every chance."""
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 0)
    return pack_folder(checkpoint("llama_gqa"), tmp_path / "model", "int8", "mixed")


class Work:
    """Counts what is reported, and interrupts at a certain step."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.steps, self.told = stop, 0, ""

    def __call__(self, label: str, _: int, __: int) -> None:
        if label != "compiling kernels":
            self.steps += 1
            if self.steps == self.stop:
                raise KeyboardInterrupt


def run(folder: Path, methods: list[str], work: Work) -> list[bytes]:
    def notify(sentence: str) -> None:
        work.told += sentence

    calibrate(str(folder), tokens=TOKENS, methods=methods, threads=2, progress=work, notify=notify)
    return [(folder / f"plan-{name}.safetensors").read_bytes() for name in methods]


@pytest.mark.parametrize("methods", [["auto"], ["chess", "centred"]])
def test_an_interrupted_calibration_goes_on_and_gives_the_same_plan(
    folder: Path, methods: list[str]
) -> None:
    whole = Work()
    expected = run(folder, methods, whole)
    assert not list(calibrations_root().iterdir()), "it is through"
    for stop in (whole.steps // 3, whole.steps - 1):
        with pytest.raises(KeyboardInterrupt):
            run(folder, methods, Work(stop))
        assert len(list(calibrations_root().iterdir())) == 1
        again = Work()
        assert run(folder, methods, again) == expected
        assert again.steps <= whole.steps
        assert not list(calibrations_root().iterdir())
    assert "Going on where" in again.told
    assert again.steps < whole.steps


def test_interrupted_again_and_again(folder: Path) -> None:
    expected = run(folder, ["auto"], Work())
    for _ in range(30):
        try:
            found = run(folder, ["auto"], Work(8))
            break
        except KeyboardInterrupt:
            continue
    assert found == expected


def test_a_damaged_checkpoint_is_left_aside(folder: Path) -> None:
    expected = run(folder, ["auto"], Work())
    for content in (b"", b"\xff" * 9):
        with pytest.raises(KeyboardInterrupt):
            run(folder, ["auto"], Work(7))
        (place,) = calibrations_root().iterdir()
        for file in place.glob("*.safetensors"):
            file.write_bytes(content)
        assert run(folder, ["auto"], Work()) == expected


def test_arrays_that_do_not_fit_are_left_aside() -> None:
    residual = np.zeros((2, 3))
    assert gradients_from({"at": np.array(1)}) == ({}, None)
    assert gradients_from({"x.q_proj.weights": np.array(1)}) == ({}, None)
    assert gradients_from({"0.q_proj.nose": np.array(1)}) == ({}, None)
    for arrays in (None, {}, {"residual": np.ones(4)}, {"residual": np.ones((2, 3))}):
        if arrays != {}:
            assert counted_from(arrays, residual) == []
        assert fits_from(arrays, ["chess"], residual) == {"chess": []}
    bad = {"residual": np.ones((2, 3)), "0.chess.mean.layout": np.frombuffer(b"{}", np.uint8)}
    assert fits_from(bad, ["chess"], residual) == {"chess": []}
    assert not residual.any()


def test_two_at_once_and_folders_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    with checkpoint("a") as one, checkpoint("a") as same, checkpoint("b") as other:
        for each in (one, same, other):
            each.offer("stage", lambda: {"x": np.arange(3)}, last=True)
        assert one.begun
        assert not same.begun
        assert one.load("stage") is not None
        assert same.load("stage") is None
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("x")
    with checkpoint("a") as nowhere:
        nowhere.offer("stage", lambda: {"x": np.arange(3)}, last=True)
        assert not nowhere.begun
    assert Checkpoint(tmp_path / "absent").load("stage") is None


def test_what_was_given_up_is_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        with pytest.raises(KeyboardInterrupt), checkpoint(name):
            raise KeyboardInterrupt
    old, young = sorted(calibrations_root().iterdir())
    long_ago = time.time() - GIVEN_UP_SECONDS - 60
    os.utime(old, (long_ago, long_ago))
    assert leftovers(work_folders()) == [old.absolute()]
    if os.name != "nt":
        with held(old):
            assert leftovers(work_folders()) == []
    pack_cache.clear_leftovers()
    assert list(calibrations_root().iterdir()) == [young]
    pack_cache.clear()
    assert not calibrations_root().exists()
