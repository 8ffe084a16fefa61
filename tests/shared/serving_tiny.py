"""What the tiny server of tests/server is called, its key, and the type of what asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

KEY, NAME = "sesame", "tiny"
Ask = Callable[..., tuple[int, Any]]  # (path, body=None, **headers) -> (status, decoded body)
Say = Callable[..., None]  # say(text, template): what the model answers from now on
