"""GGUF metadata to tokenizer.json, tokenizer_config.json and the chat template.

Byte-level BPE (`gpt2`) in the pre-tokenizer kinds smollm, llama-bpe, qwen2, tekken and default,
and SentencePiece (`llama`) as BPE with byte fallback. Checked for equal ids on 3,000 awkward texts
each: SmolLM2 and Qwen2.5-Coder against the pipelines of their tokenizer.json and transformers'
Qwen2Tokenizer (what transformers makes of the GGUF itself differs: it forgets single digits and
NFC); SentencePiece models of 1,000 and 4,000 pieces against the sentencepiece package; every kind
in tests/sources/test_gguf_tokenizer.py. What the metadata do not tell stays as llama.cpp has it:
added tokens never swallow the spaces beside them, and a SentencePiece text gets its space prefix
after every special token too, as in the tokenizer.json of Llama 2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from converters.sources.gguf_config import token_id
from converters.sources.gguf_header import GgufHeader
from converters.sources.gguf_vocabulary import Vocabulary, listed_merges, scored_merges
from sparity_edge.errors import SourceError

MAX_TEMPLATE = 1 << 20

# The alternatives that the original regular expressions are made of.
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+"
_SPACES = (r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+")


@dataclass(frozen=True)
class Kind:
    """What `tokenizer.ggml.pre` stands for.

    `pattern` None means the regular expression of GPT-2, which the library has built in.
    """

    pattern: tuple[str, ...] | None = None
    single_digits: bool = False  # a step before the GPT-2 pattern
    normalizer: str | None = None
    ignore_merges: bool = False  # a word that is a token is taken whole
    add_bos: bool = False  # where tokenizer.ggml.add_bos_token is missing


_GPT2 = Kind()
_SMOLLM = Kind(single_digits=True)
_LLAMA3 = Kind(
    (_CONTRACTION, _LEAD + r"\p{L}+", r"\p{N}{1,3}", _SYMBOLS + r"[\r\n]*", *_SPACES),
    ignore_merges=True,
    add_bos=True,
)
_QWEN2 = Kind(
    (_CONTRACTION, _LEAD + r"\p{L}+", r"\p{N}", _SYMBOLS + r"[\r\n]*", *_SPACES),
    normalizer="NFC",
)
_TEKKEN = Kind(
    (
        f"{_LEAD}{_UPPER}*{_LOWER}+",
        f"{_LEAD}{_UPPER}+{_LOWER}*",
        r"\p{N}",
        _SYMBOLS + r"[\r\n/]*",
        *_SPACES,
    ),
    ignore_merges=True,
    add_bos=True,
)
KINDS = {
    "default": _GPT2,
    "gpt-2": _GPT2,
    "smollm": _SMOLLM,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "tekken": _TEKKEN,
}


def make_tokenizer_files(header: GgufHeader) -> dict[str, bytes]:
    """The files of a Hugging Face folder that hold the tokenizer.

    Raises:
        SourceError: metadata are missing, contradict each other, or are of a kind that is not
            supported.
    """
    vocabulary = Vocabulary.read(header)
    model = header.text("tokenizer.ggml.model")
    if model == "gpt2":
        tokenizer, add_bos = _byte_level(header, vocabulary)
    elif model == "llama":
        tokenizer, add_bos = _sentencepiece(header, vocabulary)
    else:
        raise SourceError(
            f"{header.label}: tokenizer.ggml.model={model!r} is not supported; only gpt2 "
            "(byte-level BPE) and llama (SentencePiece) are."
        )
    add_bos = header.boolean("tokenizer.ggml.add_bos_token", add_bos)
    add_eos = header.boolean("tokenizer.ggml.add_eos_token", False)
    tokenizer["post_processor"] = _post_processor(header, vocabulary, add_bos, add_eos)
    content = json.dumps(tokenizer, ensure_ascii=False).encode()
    _check(header, content)
    settings = _settings(header, vocabulary, add_bos, add_eos)
    files = {"tokenizer.json": content, "tokenizer_config.json": json.dumps(settings).encode()}
    template = header.text("tokenizer.chat_template", "")
    if len(template) > MAX_TEMPLATE:
        raise SourceError(f"{header.label}: tokenizer.chat_template is longer than a template is.")
    if template:
        files["chat_template.jinja"] = template.encode()
    return files


def _byte_level(header: GgufHeader, vocabulary: Vocabulary) -> tuple[dict[str, Any], bool]:
    name = header.text("tokenizer.ggml.pre")
    if name not in KINDS:
        raise SourceError(
            f"{header.label}: tokenizer.ggml.pre={name!r} is not supported; "
            f"use one of {', '.join(KINDS)}."
        )
    kind = KINDS[name]
    merges = listed_merges(header, vocabulary)
    tokenizer = _skeleton(vocabulary, merges, ignore_merges=kind.ignore_merges)
    if kind.normalizer:
        tokenizer["normalizer"] = {"type": kind.normalizer}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": _splitters(kind)}
    tokenizer["decoder"] = _byte_level_step(use_regex=True)
    return tokenizer, kind.add_bos


def _splitters(kind: Kind) -> list[dict[str, Any]]:
    if kind.pattern is not None:
        split = {"Regex": "|".join(kind.pattern)}
        first = {"type": "Split", "pattern": split, "behavior": "Isolated", "invert": False}
        return [first, _byte_level_step(use_regex=False)]
    digits = [{"type": "Digits", "individual_digits": True}] if kind.single_digits else []
    return [*digits, _byte_level_step(use_regex=True)]


def _byte_level_step(use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _sentencepiece(header: GgufHeader, vocabulary: Vocabulary) -> tuple[dict[str, Any], bool]:
    if "tokenizer.ggml.merges" in header.metadata:
        merges = listed_merges(header, vocabulary)
    else:
        merges = scored_merges(header, vocabulary)
    unknown = token_id(header, "unknown", len(vocabulary.tokens))
    tokenizer = _skeleton(
        vocabulary,
        merges,
        unk_token=None if unknown is None else vocabulary.tokens[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps: list[dict[str, Any]] = [space]
    undo: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if header.boolean("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, {"type": "Prepend", "prepend": "▁"})
        undo.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": steps}
    tokenizer["decoder"] = {"type": "Sequence", "decoders": undo}
    return tokenizer, True


def _skeleton(
    vocabulary: Vocabulary, merges: list[tuple[str, str]], **options: Any
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added(),
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            **options,
            "vocab": vocabulary.ids,
            # Pairs, not "a b": that style cannot hold pieces with a space (tokenizers 0.20 on).
            "merges": merges,
        },
    }


def _post_processor(
    header: GgufHeader, vocabulary: Vocabulary, add_bos: bool, add_eos: bool
) -> dict[str, Any] | None:
    """Begin and end of text around what was encoded; None: neither is wanted."""
    around = {}
    for name, wanted in (("bos", add_bos), ("eos", add_eos)):
        number = token_id(header, name, len(vocabulary.tokens)) if wanted else None
        if number is not None:
            around[name] = (vocabulary.tokens[number], number)
    if not around:
        return None
    special = {text: {"id": text, "ids": [n], "tokens": [text]} for text, n in around.values()}
    return {
        "type": "TemplateProcessing",
        "single": _template(around, ("A",)),
        "pair": _template(around, ("A", "B")),
        "special_tokens": special,
    }


def _template(
    around: dict[str, tuple[str, int]], sequences: tuple[str, ...]
) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for type_id, name in enumerate(sequences):
        for piece in ("bos", name, "eos"):
            if piece == name:
                parts.append({"Sequence": {"id": name, "type_id": type_id}})
            elif piece in around:
                parts.append({"SpecialToken": {"id": around[piece][0], "type_id": type_id}})
    return parts


def _settings(
    header: GgufHeader, vocabulary: Vocabulary, add_bos: bool, add_eos: bool
) -> dict[str, Any]:
    """Content of tokenizer_config.json."""
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": add_bos,
        "add_eos_token": add_eos,
        "clean_up_tokenization_spaces": False,
    }
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    for name, short in names.items():
        number = token_id(header, name, len(vocabulary.tokens))
        if number is not None:
            settings[f"{short}_token"] = vocabulary.tokens[number]
    return settings


def _check(header: GgufHeader, content: bytes) -> None:
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises nothing narrower
        raise SourceError(
            f"{header.label}: the tokenizer in the metadata cannot be built ({error})."
        ) from error
