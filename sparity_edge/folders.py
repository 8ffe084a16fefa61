"""Where things are kept between runs: one folder for models, one for machine code."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "SPARITY_EDGE_CACHE"


def cache_root() -> Path:
    """The folder of models: `SPARITY_EDGE_CACHE`, or where the system keeps caches."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return _users_cache()


def kernel_root() -> Path:
    """The folder of compiled kernels: `NUMBA_CACHE_DIR`, or where the system keeps caches."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen)
    return _users_cache() / "kernels"


def _users_cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("sparity-edge", appauthor=False))
