"""How much memory there is left by each limit, and models that do not fit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sparity_edge.errors import ResourceError
from sparity_edge.system import headroom, host

posix = pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are POSIX")
UNDER_A_LIMIT = """
import resource, sys
from sparity_edge.system.headroom import demand_memory
resource.setrlimit(getattr(resource, sys.argv[1]), (2 << 30, 2 << 30))
demand_memory(1 << 20, "A small one")
demand_memory(3 << 30, "m: the model")
"""


@posix
@pytest.mark.parametrize(("limit", "option"), [("RLIMIT_AS", "-v"), ("RLIMIT_DATA", "-d")])
def test_limits_of_the_process(limit: str, option: str) -> None:
    words = [sys.executable, "-c", UNDER_A_LIMIT, limit]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert f"m: the model takes 3.2 GB of memory and the limit `ulimit {option}`" in done.stderr


@pytest.mark.parametrize(
    ("line", "names", "stat"),
    [
        ("0::/service", ("memory.max", "memory.current"), "inactive_file 100\nactive_file 50"),
        (
            "4:memory:/service",
            ("memory/service/memory.limit_in_bytes", "memory/service/memory.usage_in_bytes"),
            "total_inactive_file 100\ntotal_active_file 50",
        ),
    ],
)
def test_limits_of_a_control_group(
    line: str, names: tuple[str, str], stat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (tmp_path / names[0]).parent
    place.mkdir(parents=True, exist_ok=True)
    (tmp_path / names[0]).write_text("1000\n")
    (tmp_path / names[1]).write_text("600\n")
    (place / "memory.stat").write_text(stat)
    original: Callable[[Path], str | None] = host._text
    monkeypatch.setattr(host, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(
        host, "_text", lambda path: line if path.name == "cgroup" else original(path)
    )
    headroom.demand_memory(550, "It")
    with pytest.raises(ResourceError, match=r"takes 0\.0 MB .*container or service leaves 0\.0 MB"):
        headroom.demand_memory(551, "It")


def test_a_model_beyond_the_machine() -> None:
    with pytest.raises(ResourceError, match=r"x takes 1000000\.0 GB of memory and this machine"):
        headroom.demand_memory(10**15, "x")


LITTLE_SPACE = """
import resource
from sparity_edge.load import load
resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
load("no model")
"""


@posix
def test_an_address_space_that_is_too_small_for_the_compiler() -> None:
    words = [sys.executable, "-c", LITTLE_SPACE]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert "The compiler of the kernels takes 400.0 MB of memory and the limit" in done.stderr
