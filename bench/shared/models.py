"""Models as the benchmarks want them: the file behind a name."""

from __future__ import annotations

from pathlib import Path

DEFAULT_MODEL = "smollm2-135m@wheel"
FILE = "file"  # in place of a number format: that of the model's file


def gguf_of(model: str) -> Path:
    """The GGUF file that a path or an alias stands for."""
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        return path
    from converters.sources.remote.hub import fetch

    return fetch(model).path
