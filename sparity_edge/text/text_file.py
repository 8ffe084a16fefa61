"""A text file from outside: UTF-8, without a byte order mark, of bounded size.

Every command that measures, calibrates or asks with a user's text reads it here. What the text is
for is not known here.
"""

from __future__ import annotations

from pathlib import Path

from sparity_edge.errors import OptionError

MAX_TEXT_BYTES = 256 << 20  # far more is a mistake


def read_text_file(path: str | Path) -> str:
    """The text of a file; a byte order mark, which editors put before it, is no part of it.

    Raises:
        OptionError: the file is too long, or is not UTF-8.
        OSError: it is not there, or may not be read.
    """
    if "\0" in str(path):
        raise OptionError(f"{str(path)!r} is no name of a file; check the spelling.")
    with Path(path).open("rb") as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise OptionError(f"{path} is longer than {MAX_TEXT_BYTES >> 20} MiB; use a part of it.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from None
