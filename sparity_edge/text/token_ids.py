"""Token ids from outside: whole numbers that become rows of the embedding, checked before they do.

Ids come from callers, saved files and tokenizers, and kernels read whatever row an id names. All of
them pass one of the two checks here. Knows no tokenizer library and nothing of weights.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparity_edge.errors import OptionError, SourceError


def checked_ids(ids: Iterable[Any], rows: int) -> list[int]:
    """Token ids as plain ints, each a row of the embedding.

    Args:
        ids: whatever was given for them; ints of NumPy are as good as those of Python.
        rows: of the embedding.

    Raises:
        OptionError: one is no whole number, or no row.
    """
    return [_checked_id(token, rows) for token in ids]


def _checked_id(token: Any, rows: int) -> int:
    try:
        number = None if _is_truth(token) else operator.index(token)
    except TypeError:
        number = None
    if number is None:
        raise OptionError(
            f"{_shown(token)} is neither a message nor a token id; give a text, messages or ids."
        )
    if not 0 <= number < rows:
        raise OptionError(
            f"Token id {_shown(number)} lies outside the vocabulary, which ends at {rows - 1}."
        )
    return number


def demand_rows(vocabulary: Mapping[str, int], added: Sequence[int], rows: int) -> None:
    """Refuse a tokenizer that gives ids for which the embedding has no row.

    A vocabulary with fewer ids than rows is fine: models fill their embedding up.

    Args:
        vocabulary: ids of all tokens, added ones included.
        added: the ids that the tokenizer puts around every text.
        rows: of the embedding.

    Raises:
        SourceError: an id is `rows` or more.
    """
    token = max(vocabulary, key=vocabulary.__getitem__, default="")
    largest = max(added, default=0)
    of = "a token that it puts around every text"
    if vocabulary and vocabulary[token] >= largest:
        largest, of = vocabulary[token], f"its token {_shown(token)}"
    if largest >= rows:
        raise SourceError(
            f"tokenizer.json gives {of} the id {largest}, and the model has embeddings for the "
            f"{rows} ids from 0 to {rows - 1} only; fetch the tokenizer that belongs to the model."
        )


def _shown(value: Any) -> str:
    try:
        text = ascii(value)
    except ValueError:  # an int of more digits than Python writes out
        text = "of very many digits"
    return text if len(text) <= 80 else text[:77] + "..."


def _is_truth(token: Any) -> bool:
    """Whether it is a bool, of Python's or of NumPy's, which older ones take for an index."""
    return isinstance(token, bool) or str(getattr(token, "dtype", "")) == "bool"
