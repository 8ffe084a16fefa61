"""The system this process runs on, as far as it bears on speed: what it may use and what is in use.

Every fact that a system does not tell is None, never a guess. Knows nothing of models or kernels,
and nothing of what follows from a fact: that is advice.py's concern.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparity_edge.system.disk import free_bytes, nearest

SYSTEM = Path("/sys")
CONTROL_GROUPS = SYSTEM / "fs" / "cgroup"
# Drivers under which the governor "powersave" still lets the clock rise; there the preference says
# what is wanted.
SELF_GOVERNED = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
LOOK_SECONDS = 0.3  # how long to watch what other processes do


def cores() -> dict[str, Any]:
    """How many there are, and how many this process may use."""
    import psutil

    allowed = None
    if hasattr(psutil.Process, "cpu_affinity"):
        allowed = len(psutil.Process().cpu_affinity())
    return {
        "physical": psutil.cpu_count(logical=False),
        "logical": psutil.cpu_count(),
        "allowed": allowed,
        "container_quota": _quota(),
    }


def memory() -> dict[str, Any]:
    """Bytes of memory: of the machine, of the container, free for use, and swapped out."""
    import psutil

    now = psutil.virtual_memory()
    swapped: int | None = None
    with contextlib.suppress(OSError, RuntimeError):
        swapped = int(psutil.swap_memory().used)
    limits = [each for each in (_bytes(text) for text in _limits("memory.max")) if each]
    return {
        "total_bytes": now.total,
        "available_bytes": now.available,
        "container_limit_bytes": min(limits, default=None),
        "swapped_bytes": swapped,
        "huge_pages": huge_pages(),
    }


def power() -> dict[str, Any]:
    """Whether the machine saves power, and how busy its cores are with other work."""
    import psutil

    busy = psutil.cpu_percent(interval=LOOK_SECONDS) / 100 * (psutil.cpu_count() or 1)
    return {"on_battery": _on_battery(), "saving": _saving(), "busy_cores": round(busy, 2)}


def folder(path: Path) -> dict[str, Any]:
    """A folder of a cache: bytes in it and left on its disk, and whether it can be written."""
    there = nearest(path)
    return {
        "path": str(path),
        "used_bytes": bytes_in(path),
        "free_bytes": free_bytes(path),
        "writable": _writable(there),
    }


def bytes_in(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    below = [Path(place, name) for place, _, names in os.walk(path) for name in names]
    return sum(_size(file) for file in (below if path.is_dir() else [path]))


def huge_pages() -> str | None:
    """What Linux does about large pages: "always", "madvise" (as asked for) or "never"."""
    text = _text(SYSTEM / "kernel/mm/transparent_hugepage/enabled") or ""
    return text.partition("[")[2].partition("]")[0] or None


def _on_battery() -> bool | None:
    import psutil

    with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):
        state = psutil.sensors_battery()
        return None if state is None or state.power_plugged is None else not state.power_plugged
    return None


def _saving() -> str | None:
    """The setting that keeps the clock low, if there is one."""
    for policy in sorted((SYSTEM / "devices/system/cpu/cpufreq").glob("policy*")):
        preference = _text(policy / "energy_performance_preference")
        if preference == "power":
            return "energy_performance_preference power"
        governor = _text(policy / "scaling_governor")
        self_governed = _text(policy / "scaling_driver") in SELF_GOVERNED
        if governor == "powersave" and not self_governed:
            return "scaling_governor powersave"
    return None


def _quota() -> float | None:
    """Cores' worth of time that the container may use a second; None: as many as there are."""
    shares = []
    for text in _limits("cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            shares.append(int(quota) / int(period))
    return min(shares, default=None)


def control_groups(of: str = "") -> Iterator[Path]:
    """The control groups that hold this process, from inside out.

    Args:
        of: "memory" for the groups of version 1 that limit it; nothing for those of version 2.
    """
    root = CONTROL_GROUPS / of
    for line in (_text(Path("/proc/self/cgroup")) or "").splitlines():
        _, kinds, name = (*line.split(":", 2), "", "")[:3]
        if kinds == of:
            inside = root / name.lstrip("/")
            yield from (place for place in (inside, *inside.parents) if place.is_relative_to(root))


def _limits(name: str) -> Iterator[str]:
    """A setting of the control groups that hold this process, from inside out."""
    for place in control_groups():
        if text := _text(place / name):
            yield text


def _bytes(text: str) -> int | None:
    return int(text) if text.isdigit() else None  # "max" where there is no limit


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:  # removed meanwhile
        return 0


def _writable(there: Path) -> bool:
    # Asked by writing: permissions do not tell of read-only disks and of access lists.
    try:
        with tempfile.TemporaryFile(dir=there):
            return True
    except OSError:
        return False
