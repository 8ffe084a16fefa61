"""The house: a room imports only rooms above it, and nothing imports itself in a circle."""

from __future__ import annotations

from pathlib import Path

import pytest
import rooms

ARROWS = rooms.all_arrows()


@pytest.mark.parametrize(
    "house",
    [rooms.HOUSE, rooms.KERNELS, rooms.CONVERTERS],
    ids=["house", "kernels", "converters"],
)
def test_no_room_imports_what_stands_below_it(house: tuple[str, ...]) -> None:
    assert [f"{here} imports {there}" for here, there in rooms.upward(house, ARROWS)] == []


def test_every_module_stands_in_a_room() -> None:
    homeless = [name for name in rooms.modules() if rooms.room_of(name, rooms.HOUSE) is None]
    assert homeless == []


def test_nothing_imports_itself_in_a_circle() -> None:
    assert rooms.circles(ARROWS) == []
    assert rooms.circles(rooms.between(rooms.HOUSE, ARROWS)) == []


def test_converters_import_the_runtime_up_to_the_model() -> None:
    assert rooms.beyond(ARROWS) == []


def test_the_house_is_no_larger_than_planned() -> None:
    pairs = rooms.between(rooms.HOUSE, ARROWS)
    assert rooms.levels(pairs) <= 11


def test_no_file_and_no_folder_is_crowded() -> None:
    assert rooms.crowded() == []


def test_nothing_in_bench_imports_a_script() -> None:
    assert rooms.bench_upward() == []


def write(root: Path, name: str, text: str = "") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_lazy_typing_and_relative_imports_count(tmp_path: Path) -> None:
    write(tmp_path, "converters/__init__.py")
    write(tmp_path, "sparity_edge/__init__.py")
    write(tmp_path, "sparity_edge/chat/__init__.py")
    write(
        tmp_path,
        "sparity_edge/errors.py",
        "def f():\n  from sparity_edge.model import model\n  import sparity_edge.chat.session\n",
    )
    write(tmp_path, "sparity_edge/model/__init__.py")
    write(
        tmp_path,
        "sparity_edge/model/model.py",
        "if TYPE_CHECKING:\n    from ..chat.session import Session\n    from . import layer\n",
    )
    write(tmp_path, "sparity_edge/model/layer.py", "import numpy\n")
    write(tmp_path, "sparity_edge/chat/session.py", "from ..errors import f\n")
    arrows = rooms.all_arrows(tmp_path)
    assert arrows == [
        ("sparity_edge.chat.session", "sparity_edge.errors"),
        ("sparity_edge.errors", "sparity_edge.chat.session"),
        ("sparity_edge.errors", "sparity_edge.model.model"),
        ("sparity_edge.model.model", "sparity_edge.chat.session"),
        ("sparity_edge.model.model", "sparity_edge.model.layer"),
    ]
    assert rooms.upward(rooms.HOUSE, arrows) == [arrows[1], arrows[2], arrows[3]]
    assert rooms.circles(arrows) == [
        ["sparity_edge.chat.session", "sparity_edge.errors", "sparity_edge.model.model"]
    ]
    assert rooms.levels([("a", "b"), ("b", "c"), ("a", "c")]) == 3


def test_crowds_and_imports_of_scripts_are_seen(tmp_path: Path) -> None:
    write(tmp_path, "tests/long.py", "\n" * 301)
    write(tmp_path, "docs/short.py", "\n" * 300)
    for index in range(19):
        write(tmp_path, f"bench/shared/m{index}.py")
    assert rooms.crowded(tmp_path) == ["tests/long.py has 301 lines", "bench/shared has 19 modules"]
    write(tmp_path, "bench/pages/page.py", "from shared.m1 import f\n")
    write(tmp_path, "bench/peers.py", "from pages import page\nimport pages.page, shared.m2\n")
    assert rooms.bench_upward(tmp_path) == []
    write(tmp_path, "bench/shared/m1.py", "def f():\n    from pages.page import g\n")
    write(tmp_path, "bench/ladder.py", "import peers\n")
    assert rooms.bench_upward(tmp_path) == [("ladder", "peers"), ("shared.m1", "pages.page")]
