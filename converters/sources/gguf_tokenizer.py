"""GGUF metadata to tokenizer.json, tokenizer_config.json and the chat template.

Byte-level BPE (`gpt2`) in the kinds of gguf_pretokenizers, and SentencePiece (`llama`) as BPE with
byte fallback. Checked for equal ids on 3,000 awkward texts each: SmolLM2 and Qwen2.5-Coder against
the pipelines of their tokenizer.json and transformers' Qwen2Tokenizer (what transformers makes of
the GGUF itself differs: it forgets single digits and NFC); SentencePiece models of 1,000 and 4,000
pieces against the sentencepiece package; every kind in test_gguf_tokenizer.py.
What the metadata do not tell stays as llama.cpp has it: added tokens never swallow the spaces
beside them, and a SentencePiece text gets its space prefix after every special token too, as in the
tokenizer.json of Llama 2.
"""

from __future__ import annotations

import json
from typing import Any

from converters.sources.gguf_metadata import GgufHeader, brief
from converters.sources.gguf_pretokenizers import DEFAULT, KINDS, byte_level_step
from converters.sources.gguf_special import SpecialTokens
from converters.sources.gguf_vocabulary import Vocabulary, listed_merges, scored_merges
from sparity_edge.errors import SourceError

MAX_TEMPLATE = 1 << 20


def make_tokenizer_files(header: GgufHeader, special: SpecialTokens) -> dict[str, bytes]:
    """The files of a Hugging Face folder that hold the tokenizer.

    Args:
        header: of the file.
        special: the special tokens of the file, with its vocabulary.

    Raises:
        SourceError: metadata are missing, contradict each other, or are of a kind that is not
            supported.
    """
    model = header.text("tokenizer.ggml.model")
    if model == "gpt2":
        tokenizer, add_bos = _byte_level(header, special.vocabulary)
    elif model == "llama":
        tokenizer, add_bos = sentencepiece(header, special)
    else:
        raise SourceError(
            f"{header.label}: tokenizer.ggml.model={model!r} is not supported; only gpt2 "
            "(byte-level BPE) and llama (SentencePiece) are."
        )
    add_bos = header.boolean("tokenizer.ggml.add_bos_token", add_bos)
    add_eos = header.boolean("tokenizer.ggml.add_eos_token", False)
    tokenizer["added_tokens"] = special.vocabulary.added(_is_phi3(header))
    tokenizer["post_processor"] = post_processor(special, add_bos, add_eos)
    content = json.dumps(tokenizer, ensure_ascii=False).encode()
    _check(header, content)
    settings = _settings(special, add_bos, add_eos)
    files = {"tokenizer.json": content, "tokenizer_config.json": json.dumps(settings).encode()}
    template = header.text("tokenizer.chat_template", "")
    if len(template) > MAX_TEMPLATE:
        raise SourceError(f"{header.label}: tokenizer.chat_template is longer than a template is.")
    if template:
        files["chat_template.jinja"] = template.encode()
    return files


def notes_on_tokenizer(header: GgufHeader) -> tuple[str, ...]:
    """What was assumed of the tokenizer, a sentence each."""
    if header.text("tokenizer.ggml.model") != "gpt2" or "tokenizer.ggml.pre" in header.metadata:
        return ()
    return (
        "tokenizer.ggml.pre is missing, so texts are split as llama.cpp does by "
        "default, which can make answers worse; a newer conversion of the model has it.",
    )


def _byte_level(header: GgufHeader, vocabulary: Vocabulary) -> tuple[dict[str, Any], bool]:
    name = header.text("tokenizer.ggml.pre", DEFAULT)
    if name not in KINDS:
        raise SourceError(
            f"{header.label}: tokenizer.ggml.pre={brief(name)} is not supported: how this "
            "tokenizer splits a text is not known; take another file."
        )
    kind = KINDS[name]
    merges = listed_merges(header, vocabulary)
    tokenizer = _skeleton(vocabulary, merges, ignore_merges=kind.ignore_merges)
    tokenizer["normalizer"] = kind.normalizer_step()
    tokenizer["pre_tokenizer"] = kind.pre_tokenizer()
    tokenizer["decoder"] = byte_level_step(use_regex=True)
    return tokenizer, kind.add_bos


def sentencepiece(header: GgufHeader, special: SpecialTokens) -> tuple[dict[str, Any], bool]:
    """Content of tokenizer.json for pieces, but for what goes around a text; and whether BOS does.

    Args:
        header: the pieces, their scores and whether a text gets a space in front, as in GGUF.
        special: of these pieces.

    Raises:
        SourceError: the scores are missing or no numbers.
    """
    vocabulary = special.vocabulary
    if "tokenizer.ggml.merges" in header.metadata:
        merges = listed_merges(header, vocabulary)
    else:
        merges = scored_merges(header, vocabulary)
    unknown = special.ids.get("unknown")
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
        "added_tokens": [],  # make_tokenizer_files sets them
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


def post_processor(special: SpecialTokens, add_bos: bool, add_eos: bool) -> dict[str, Any] | None:
    """Begin and end of text around what was encoded, as in tokenizer.json; None: neither."""
    around = {}
    for name, wanted in (("bos", add_bos), ("eos", add_eos)):
        if wanted and name in special.ids:
            number = special.ids[name]
            around[name] = (special.vocabulary.tokens[number], number)
    if not around:
        return None
    tokens = {text: {"id": text, "ids": [n], "tokens": [text]} for text, n in around.values()}
    return {
        "type": "TemplateProcessing",
        "single": _template(around, ("A",)),
        "pair": _template(around, ("A", "B")),
        "special_tokens": tokens,
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


def _settings(special: SpecialTokens, add_bos: bool, add_eos: bool) -> dict[str, Any]:
    """Content of tokenizer_config.json."""
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": add_bos,
        "add_eos_token": add_eos,
        "clean_up_tokenization_spaces": False,
    }
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    for name, short in names.items():
        if name in special.ids:
            settings[f"{short}_token"] = special.vocabulary.tokens[special.ids[name]]
    return settings


def _is_phi3(header: GgufHeader) -> bool:
    """Whether special tokens swallow the spaces after them, which no key tells (as llama.cpp)."""
    name = header.metadata.get("general.name")
    return isinstance(name, str) and any(each in name.lower() for each in ("phi-3", "phi3"))


def _check(header: GgufHeader, content: bytes) -> None:
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises nothing narrower
        raise SourceError(
            f"{header.label}: the tokenizer in the metadata cannot be built ({error})."
        ) from error
