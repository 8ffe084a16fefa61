"""The pack cache: what is listed, and what clearing removes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import platformdirs
import pytest
from packing import contents

from converters import pack_cache, screen_place, store
from converters.pack_options import PackOptions
from sparity_edge.errors import OptionError
from sparity_edge.system import folders

pytestmark = pytest.mark.usefixtures("root")


@pytest.mark.usefixtures("opened")
def test_entries_say_what_is_there() -> None:
    assert pack_cache.entries() == []
    folder = store.prepare("org/b", PackOptions("int4"))
    os.utime(folder / "sparity.json", (1, 1))
    store.prepare("org/a", PackOptions())
    first, second = pack_cache.entries()
    assert (first.name, second.name) == ("org/a", "org/b")
    assert second.path == folder
    assert second.options["dtype"] == "int4"
    assert second.nbytes == sum(len(content) for content in contents(folder).values())
    assert second.last_used == 1
    store.prepare("org/b", PackOptions("int4"))
    assert time.time() - pack_cache.entries()[1].last_used < 60


def test_clear_by_name_or_key(opened: list[str]) -> None:
    for name in ("org/a", "org/b", "org/c"):
        store.prepare(name, PackOptions())
    assert [entry.name for entry in pack_cache.clear("org/b")] == ["org/b"]
    key = pack_cache.entries()[1].key
    assert [entry.name for entry in pack_cache.clear(key[:8])] == ["org/c"]
    with pytest.raises(OptionError, match=r"no 'org/b'; it holds org/a"):
        pack_cache.clear("org/b")
    store.prepare("org/b", PackOptions())
    assert opened.count("org/b") == 2
    assert {entry.name for entry in pack_cache.clear()} == {"org/a", "org/b"}
    assert pack_cache.entries() == []
    with pytest.raises(OptionError, match="it holds nothing"):
        pack_cache.clear("org/b")


@pytest.mark.usefixtures("opened")
def test_the_screen_of_a_head_goes_with_the_last_pack_it_serves() -> None:
    first, second = (store.prepare(name, PackOptions()) for name in ("org/a", "org/b"))
    (screen,) = screen_place.screens_of([first, second])
    screen.parent.mkdir()
    screen.touch()
    pack_cache.clear("org/a")
    assert screen.exists()
    pack_cache.clear("org/b")
    assert not screen.exists()


@pytest.mark.usefixtures("opened")
def test_clear_removes_only_what_is_ours(root: Path) -> None:
    store.prepare("org/a", PackOptions())
    packs = root / "packed"
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (packs / ("0" * 64)).mkdir()  # a pack whose manifest is gone
    (packs / f".{'1' * 64}.partial-00000000-1-00000000").mkdir()
    os.utime(packs / f".{'1' * 64}.partial-00000000-1-00000000", (1, 1))
    (packs / "notes").mkdir()
    (packs / "a file").touch()
    with_link = True
    try:
        (packs / ("2" * 64)).symlink_to(outside, target_is_directory=True)
    except OSError:
        with_link = False
    pack_cache.clear()
    assert pack_cache.clear_leftovers() == (1, 0)
    left = {path.name for path in packs.iterdir()}
    assert left == {"notes", "a file"} | ({"2" * 64} if with_link else set())
    assert (outside / "file").exists()


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(folders.CACHE_VARIABLE)
    expected = platformdirs.user_cache_dir("sparity-edge", appauthor=False)
    assert folders.cache_root() == Path(expected)
