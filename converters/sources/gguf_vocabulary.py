"""Tokens, their types and the merges in the metadata of a GGUF file, checked.

Everything that the tokenizer's models share: which token has which id, which tokens are found in
the text before it is split, and in what order pieces join. Knows nothing of pre-tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.sources.gguf_metadata import GgufHeader
from sparity_edge.errors import SourceError

# tokenizer.ggml.token_type; 6 is a byte
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
# Trying every split of a piece costs its length squared; the longest real piece has 256 letters.
MAX_PIECE = 1024
MAX_LETTERS = 1 << 23
ADDED = (UNKNOWN, CONTROL, USER_DEFINED)
KEEP_SPACES = ("<unk>", "<s>", "<|endoftext|>")  # of Phi-3


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a GGUF file."""

    tokens: list[str]
    kinds: list[int]  # one type a token
    ids: dict[str, int]  # without the tokens that only fill the embedding up

    @classmethod
    def read(cls, header: GgufHeader) -> Vocabulary:
        """Read tokens and types.

        Raises:
            SourceError: there are none, they contradict each other, or they cannot be real.
        """
        tokens = header.texts("tokenizer.ggml.tokens")
        kinds = _kinds(header, len(tokens))
        pairs = zip(tokens, kinds, strict=True)
        _refuse_long(header, (len(token) for token, kind in pairs if kind not in ADDED))
        ids: dict[str, int] = {}
        for number, token in enumerate(tokens):
            filler = kinds[number] == UNUSED and token == f"[PAD{number}]"
            if not filler:
                ids.setdefault(token, number)
        return cls(tokens, kinds, ids)

    def retyped(self, numbers: Iterable[int], kind: int) -> Vocabulary:
        """This vocabulary with another type for some tokens."""
        changed = [number for number in numbers if self.kinds[number] != kind]
        kinds = self.kinds.copy() if changed else self.kinds
        for number in changed:
            kinds[number] = kind
        return replace(self, kinds=kinds)

    def added(self, swallow_spaces: bool = False) -> list[dict[str, Any]]:
        """Tokens that are found in the text before it is split, as tokenizer.json has them.

        Args:
            swallow_spaces: whether spaces after them belong to them, those of `KEEP_SPACES` aside.
        """
        return [
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": swallow_spaces and token not in KEEP_SPACES,
                "normalized": False,
                "special": kind != USER_DEFINED,
            }
            for number, (token, kind) in enumerate(zip(self.tokens, self.kinds, strict=True))
            if kind in ADDED and token and self.ids[token] == number
        ]


def _kinds(header: GgufHeader, count: int) -> list[int]:
    """One type a token; all are normal where the file tells none, as in llama.cpp."""
    key = "tokenizer.ggml.token_type"
    if key not in header.metadata:
        return [NORMAL] * count
    kinds = header.numbers(key)
    if kinds.dtype.kind not in "iu" or len(kinds) < count:
        raise SourceError(
            f"{header.label}: {key} has {len(kinds)} entries of type {kinds.dtype}, but there are "
            f"{count} tokens; the file is damaged."
        )
    types: list[int] = kinds[:count].tolist()
    return types


def listed_merges(header: GgufHeader, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """`tokenizer.ggml.merges`, earliest first.

    Raises:
        SourceError: a merge joins what are not tokens.
    """
    merges = []
    for line in header.texts("tokenizer.ggml.merges"):
        cut = line.find(" ", 1)
        left, right = line[:cut], line[cut + 1 :]
        if not {left, right, left + right} <= vocabulary.ids.keys():
            raise SourceError(
                f"{header.label}: tokenizer.ggml.merges has {line[:60]!r}, which does not join two "
                "tokens to a third; the file is damaged."
            )
        merges.append((left, right))
    return merges


def scored_merges(header: GgufHeader, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third, best score of the third first.

    SentencePiece joins the best-scored pair there is, so a rank per pair says the same. Pairs that
    make the same piece have one score there and the leftmost wins; here the longer left part
    does, as in the tokenizer.json files that were converted from SentencePiece models.

    Raises:
        SourceError: the scores are missing or no numbers.
    """
    scores = header.numbers("tokenizer.ggml.scores")
    if scores.dtype.kind not in "fi" or len(scores) < len(vocabulary.tokens):
        raise SourceError(
            f"{header.label}: tokenizer.ggml.scores has {len(scores)} entries of type "
            f"{scores.dtype}, but there are {len(vocabulary.tokens)} tokens; the file is damaged."
        )
    if not np.isfinite(scores).all():
        raise SourceError(f"{header.label}: tokenizer.ggml.scores has an entry that is no number.")
    ids, joins = vocabulary.ids, []
    for piece, number in ids.items():
        if vocabulary.kinds[number] in ADDED:
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                joins.append((-float(scores[number]), -cut, left, right))
    joins.sort(key=lambda join: join[:2])
    return [(left, right) for _, _, left, right in joins]


def _refuse_long(header: GgufHeader, lengths: Iterable[int]) -> None:
    total = 0
    for length in lengths:
        total += length
        if length > MAX_PIECE or total > MAX_LETTERS:
            raise SourceError(
                f"{header.label}: tokenizer.ggml.tokens has a token of {length} letters or more "
                f"than {MAX_LETTERS} in all; the file is damaged."
            )
