"""Where things are kept between runs: one folder for models, one for machine code."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sparity_edge.system.leftovers import CALIBRATIONS

CACHE_VARIABLE = "SPARITY_EDGE_CACHE"
_OF_KERNELS = re.compile(r"[0-9a-f]{16}")  # folders of one version's kernels


def cache_root() -> Path:
    """The folder of the pack cache: `SPARITY_EDGE_CACHE`, or where the system keeps caches."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return _users_cache()


def kernel_root() -> Path:
    """The folder of the kernel cache: `NUMBA_CACHE_DIR`, or where the system keeps caches."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen)
    return _users_cache() / "kernels"


def sources_root() -> Path:
    """The folder of files that were fetched from elsewhere than the Hub."""
    return cache_root() / "sources"


def gains_root() -> Path:
    """The folder of gains of sparsity plans that were measured on this machine."""
    return cache_root() / "gains"


def prices_root() -> Path:
    """The folder of prices of passes over several tokens that were measured on this machine."""
    return cache_root() / "prices"


def curves_root() -> Path:
    """The folder of cost curves that bench/costs.py has measured on this machine."""
    return cache_root() / "curves"


def calibrations_root() -> Path:
    """The folder of calibrations that were interrupted, or are at work: each has one in it."""
    return cache_root() / CALIBRATIONS


def besides_packs() -> list[Path]:
    """What is kept and is no packed model: sources, calibrations, gains, prices, history, kernels.

    Only what is ours: NUMBA_CACHE_DIR may name a folder that others use as well.
    """
    names = ("sources", "screens", CALIBRATIONS, "curves", "gains", "prices", "chat_history")
    ours = [cache_root() / name for name in names]
    ours += kernels_kept()
    return [each for each in sorted(ours) if each.exists() and not each.is_symlink()]


def kernels_kept() -> list[Path]:
    """The folders of compiled kernels, one for each version and machine."""
    if not kernel_root().is_dir():
        return []
    return [each for each in kernel_root().iterdir() if _OF_KERNELS.fullmatch(each.name)]


def work_folders() -> list[Path]:
    """Where interrupted runs may have left something: the pack cache, and the current folder."""
    return [cache_root(), cache_root() / "packed", calibrations_root(), Path()]


def _users_cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("sparity-edge", appauthor=False))
