"""The SentencePiece model in a file tokenizer.model, checked.

Fields are those of sentencepiece_model.proto (google/sentencepiece): pieces with scores and types,
and what the trainer and the normaliser were told. Types of pieces have the numbers that GGUF files
have too. Knows nothing of tokenizer.json.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from converters.sources.pieces.protobuf import MalformedError, Value, fields
from sparity_edge.errors import SourceError

BPE = 2  # model_type
MAX_PIECES = 1 << 20
PIECE, TRAINER, NORMALIZER = 1, 2, 3  # fields of ModelProto
TEXT, SCORE, KIND = 1, 2, 3  # of SentencePiece
MODEL_TYPE, SUFFIXES, BYTE_FALLBACK = 3, 24, 35  # of TrainerSpec
IDS = {"unknown": (40, 0), "bos": (41, 1), "eos": (42, 2), "padding": (43, -1)}  # and defaults
CHARSMAP, PREFIX, EXTRA_SPACES, ESCAPES = 2, 3, 4, 5  # of NormalizerSpec
NORMAL, CONTROL = 1, 3
NAMES = {1: "unigram", 3: "word", 4: "char"}


@dataclass(frozen=True)
class PieceModel:
    """A SentencePiece model of type BPE."""

    pieces: list[str]
    scores: list[float]
    kinds: list[int]  # as `gguf_vocabulary` has them
    ids: dict[str, int]  # "unknown", "bos", "eos", "padding": those that there are
    charsmap: bytes  # of the normaliser; empty: texts stay as they are
    prefix: bool  # whether a space is put in front of a text
    one_space: bool  # whether spaces around a text, and all but one within it, are dropped


def read_model(content: bytes, path: Path) -> PieceModel:
    """Read a file tokenizer.model.

    Args:
        content: of the file.
        path: for messages.

    Raises:
        SourceError: it is no SentencePiece model, is damaged, or of a kind that is not supported.
    """
    try:
        return _model(content, path)
    except (MalformedError, UnicodeDecodeError, struct.error) as error:
        raise SourceError(
            f"{path}: no SentencePiece model, or a damaged one ({error}); fetch the folder again, "
            "with its tokenizer.json if it has one."
        ) from None


def _model(content: bytes, path: Path) -> PieceModel:
    pieces, scores, kinds = [], [], []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in fields(content):
        if number == PIECE:
            found = dict(fields(_bytes(value)))
            pieces.append(_bytes(found.get(TEXT, b"")).decode())
            scores.append(struct.unpack("<f", _bytes(found.get(SCORE, b"\0" * 4)))[0])
            kinds.append(_int(found.get(KIND, NORMAL)))
        elif number == TRAINER:
            trainer = dict(fields(_bytes(value)))
        elif number == NORMALIZER:
            normalizer = dict(fields(_bytes(value)))
        if len(pieces) > MAX_PIECES:
            raise MalformedError(f"it has more than {MAX_PIECES} pieces")
    if not pieces:
        raise MalformedError("it has no pieces")
    kind = _int(trainer.get(MODEL_TYPE, 1))
    if kind != BPE:
        raise _unsupported(path, f"its type is {NAMES.get(kind, kind)}, and only bpe")
    if _int(trainer.get(SUFFIXES, 0)) or not _int(normalizer.get(ESCAPES, 1)):
        raise _unsupported(path, "it keeps spaces in a way of its own, and only those as prefixes")
    ids = {name: _signed(trainer.get(field, usual)) for name, (field, usual) in IDS.items()}
    return PieceModel(
        pieces, scores, kinds,
        ids={name: number for name, number in ids.items() if 0 <= number < len(pieces)},
        charsmap=_bytes(normalizer.get(CHARSMAP, b"")),
        prefix=bool(_int(normalizer.get(PREFIX, 1))),
        one_space=bool(_int(normalizer.get(EXTRA_SPACES, 1))),
    )  # fmt: skip


def _unsupported(path: Path, what: str) -> SourceError:
    return SourceError(
        f"{path}: {what} is supported; convert it to tokenizer.json with the program that made it."
    )


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise MalformedError("a field has a number in place of a text")
    return value


def _int(value: Value) -> int:
    if not isinstance(value, int):
        raise MalformedError("a field has a text in place of a number")
    return value


def _signed(value: Value) -> int:
    """An int32, which is written as 64 bits."""
    number = _int(value)
    return number - (1 << 64) if number >> 63 else number
