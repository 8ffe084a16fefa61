"""tokenizer.model to tokenizer.json: the very pieces, scores and ids of a SentencePiece model.

What transformers' AutoTokenizer makes of such a folder loses the spaces in front of a text; here a
text gets the ids that the sentencepiece package gives it (tests/golden/make_piece_goldens.py).
Special tokens that its text spells are found first, as everywhere here, and each text between them
gets its space prefix, as in the tokenizer.json of Llama 2.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.sources.gguf_metadata import GgufHeader
from converters.sources.gguf_special import SpecialTokens
from converters.sources.gguf_tokenizer import post_processor, sentencepiece
from converters.sources.gguf_vocabulary import Vocabulary
from converters.sources.pieces.model import PieceModel, read_model
from sparity_edge.errors import SourceError, library_words
from sparity_edge.progress import unheard
from sparity_edge.text.tokenizer_files import CONFIG_FILE, TOKENIZER_FILE

_NAMES = {"unknown": "unk_token", "bos": "bos_token", "eos": "eos_token", "padding": "pad_token"}


def files_of_pieces(
    content: bytes, path: Path, config: Mapping[str, Any], notify: Callable[[str], None] = unheard
) -> dict[str, bytes]:
    """tokenizer.json and tokenizer_config.json for a folder that has only a SentencePiece model.

    Args:
        content: of tokenizer.model.
        path: of it, for messages.
        config: what the folder has as tokenizer_config.json, which goes before what the model says.
        notify: told what is not as in the sentencepiece package.

    Raises:
        SourceError: the model is damaged or of a kind that is not supported.
    """
    model = read_model(content, path)
    if model.charsmap:
        notify(
            f"{path.name} maps characters to others; a combining mark behind one that is mapped, "
            "which is very rare, may be lost."
        )
    named = {_NAMES[name]: model.pieces[number] for name, number in model.ids.items()}
    tokenizer = json.dumps(_tokenizer(model, path, config), ensure_ascii=False).encode()
    _check(tokenizer, path)
    settings = json.dumps({**named, **config}).encode()
    return {TOKENIZER_FILE: tokenizer, CONFIG_FILE: settings}


def _tokenizer(model: PieceModel, path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    header = GgufHeader(
        str(path),
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": model.pieces,
            "tokenizer.ggml.scores": np.array(model.scores, dtype=np.float32),
            "tokenizer.ggml.token_type": np.array(model.kinds, dtype=np.int64),
            "tokenizer.ggml.add_space_prefix": model.prefix,
        },
        {},
    )
    vocabulary = Vocabulary.read(header)
    special = SpecialTokens(model.ids, (), vocabulary, ())
    tokenizer, _ = sentencepiece(header, special)
    tokenizer["normalizer"]["normalizers"][:0] = _before_spaces(model)
    tokenizer["added_tokens"] = vocabulary.added()
    add_bos, add_eos = config.get("add_bos_token", True), config.get("add_eos_token", False)
    tokenizer["post_processor"] = post_processor(special, bool(add_bos), bool(add_eos))
    return tokenizer


def _before_spaces(model: PieceModel) -> list[dict[str, Any]]:
    """What the normaliser does to a text before its spaces become part of pieces."""
    steps: list[dict[str, Any]] = []
    if model.charsmap:
        chars = base64.b64encode(model.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": chars})
    if model.one_space:
        # A "▁" that stands in a text counts as a space at its end only, as there.
        for pattern, content in ((r"\A +| *[ ▁]+\z", ""), (" {2,}", " ")):
            steps.append({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
    return steps


def _check(content: bytes, path: Path) -> None:
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_str(content.decode())
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics on some input
        raise SourceError(
            f"{path}: no tokenizer can be made of it ({library_words(error)}); fetch it again."
        ) from None
