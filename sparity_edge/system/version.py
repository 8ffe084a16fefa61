"""The version of this package, as it was installed; imports nothing: `--version` is quick."""

from __future__ import annotations


def own_version() -> str:
    """Such as "0.1.0"; of a clone that was not installed "0+unknown"."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sparity-edge")
    except PackageNotFoundError:
        return "0+unknown"
