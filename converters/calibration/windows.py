"""Calibration text to windows of tokens.

Documents are joined by the model's end-of-text token and cut into windows that each start cold.
Text may be the user's own files or what every Python has: the reference of the language, about
0.7 MB of English, as `help()` shows it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparity_edge.errors import OptionError
from sparity_edge.text.text_file import read_text_file

if TYPE_CHECKING:
    from sparity_edge.text.tokenizer import Tokenizer

Windows = npt.NDArray[np.int64]

WINDOW = 1024  # tokens
LEAST_WINDOWS = 4
# Between documents, where the tokenizer knows the name as one token; else its end-of-text token.
SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")


def read_documents(paths: Iterable[str | Path]) -> Iterator[str]:
    """The documents of text files: each file one, but of a .jsonl the "text" of each line.

    Raises:
        OptionError: a file is not there, too long, not UTF-8, or a line is not such an object.
    """
    for path in map(Path, paths):
        try:
            text = read_text_file(path)
        except OSError as error:
            raise OptionError(f"{path} cannot be read: {error.strerror or error}.") from None
        if path.suffix.lower() == ".jsonl":
            lines = enumerate(text.split("\n"), start=1)
            yield from (_text_of(line, path, number) for number, line in lines if line.strip())
        else:
            yield text


def token_windows(
    tokenizer: Tokenizer,
    end_ids: Sequence[int],
    documents: Iterable[str],
    tokens: int,
    window: int = WINDOW,
) -> Windows:
    """The first `tokens` tokens of some documents, in windows.

    Args:
        tokenizer: of the model.
        end_ids: what ends a text, used where the tokenizer has none of the usual names.
        documents: only as many are read as are needed.
        tokens: rounded down to whole windows.
        window: tokens of a window.

    Returns:
        (windows, window).

    Raises:
        OptionError: that is less than 4 windows.
    """
    wanted, least = tokens // window, LEAST_WINDOWS * window
    if wanted < LEAST_WINDOWS:
        raise OptionError(f"tokens={tokens} is too few to calibrate with; use at least {least}.")
    separator = _separator(tokenizer, end_ids)
    ids: list[int] = []
    for document in documents:
        ids += tokenizer.encode(document, add_special_tokens=False) + separator
        if len(ids) >= wanted * window:
            break
    count = min(wanted, len(ids) // window)
    if count < LEAST_WINDOWS:
        raise OptionError(
            f"The calibration text has {len(ids)} tokens and at least {least} are needed; "
            "give more text with --text."
        )
    return np.asarray(ids[: count * window], dtype=np.int64).reshape(count, window)


def _separator(tokenizer: Tokenizer, end_ids: Sequence[int]) -> list[int]:
    for name in SEPARATORS:
        ids = tokenizer.encode(name, add_special_tokens=False)
        if len(ids) == 1:
            return ids
    return list(end_ids[:1])


def _text_of(line: str, path: Path, number: int) -> str:
    value: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(line)
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise OptionError(f'{path}: line {number} is not an object with a "text"; mend or drop it.')
    return text
