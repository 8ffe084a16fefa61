"""The text that every Python has: the reference of the language, 0.7 MB, as `help()` shows it.

Calibration reads it from the beginning, benchmarks from the end.
"""

from __future__ import annotations

from sparity_edge.errors import OptionError


def default_documents() -> list[str]:
    """The help texts of the running Python, sorted by topic.

    Raises:
        OptionError: this Python came without them.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise OptionError(
            "This Python has no help texts (pydoc_data) to calibrate with; name a file with --text."
        ) from None
    return [topics[name] for name in sorted(topics)]
