"""Special tokens in the metadata of a GGUF file, as llama.cpp finds them: by key and by text.

The list of texts is that of `llama_vocab::impl::load` in llama.cpp's src/llama-vocab.cpp. A file
names one end of text by key, so the texts tell the others; and some files type such tokens as
normal ones, which would fall to pieces in a prompt. Knows nothing of tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from converters.sources.gguf_metadata import GgufHeader, brief
from converters.sources.gguf_vocabulary import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary

# Tokens that end an answer, whatever their type.
END_TEXTS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
)
# Tokens of fill-in-the-middle that end an answer: key and the texts that stand for a missing key.
MIDDLE_ENDS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
# Tokens of fill-in-the-middle that are control tokens and end nothing.
MIDDLE_PARTS = {
    "fim_pre": (
        *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>"),
        *("▁<PRE>", "<|code_prefix|>", "<|prefix|>"),
    ),
    "fim_suf": (
        *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>"),
        *("▁<SUF>", "<|code_suffix|>", "<|suffix|>"),
    ),
    "fim_mid": (
        *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>"),
        *("▁<MID>", "<|code_middle|>", "<|middle|>"),
    ),
}
# gpt-oss: parts of an answer that are shown.
SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
# Where a token of each of these is among the ends, <|end|> only ends a part of an answer.
CALLS, RETURNS = {"<|call|>", "<|calls|>"}, {"<|return|>", "<|flush|>"}
NAMED = ("bos", "eos", "eot", "eom", "unknown", "padding", *MIDDLE_ENDS, *MIDDLE_PARTS)
# What llama.cpp takes in a SentencePiece vocabulary where the key is missing or no token.
SENTENCEPIECE = {"unknown": 0, "bos": 1, "eos": 2}


@dataclass(frozen=True)
class SpecialTokens:
    """Ids by name (`bos`, `eos`, ...), what ends an answer, and the vocabulary with true types."""

    ids: Mapping[str, int]
    ends: tuple[int, ...]  # the end of text first
    vocabulary: Vocabulary
    notes: tuple[str, ...]  # what was ignored, one sentence each

    @classmethod
    def read(cls, header: GgufHeader, vocabulary: Vocabulary) -> SpecialTokens:
        """Find the special tokens; ids that are no token are ignored and noted."""
        ids, notes = _named(header, vocabulary)
        for name, texts in (MIDDLE_ENDS | MIDDLE_PARTS).items():
            found = [vocabulary.ids[text] for text in texts if text in vocabulary.ids]
            if name not in ids and found:
                ids[name] = found[0]
                vocabulary = vocabulary.retyped(found[:1], CONTROL)
        ends = [vocabulary.ids[text] for text in END_TEXTS if text in vocabulary.ids]
        vocabulary = vocabulary.retyped(ends, CONTROL)
        shown = [vocabulary.ids[text] for text in SHOWN if text in vocabulary.ids]
        vocabulary = vocabulary.retyped(shown, USER_DEFINED)
        named = [ids[name] for name in ("eos", "eot", "eom") if name in ids]
        ends = [*named, *ends, *(ids[name] for name in MIDDLE_ENDS if name in ids)]
        for text, kind in _no_ends({vocabulary.tokens[number] for number in ends}).items():
            ends = [number for number in ends if number != vocabulary.ids[text]]
            vocabulary = vocabulary.retyped([vocabulary.ids[text]], kind)
        return cls(ids, tuple(dict.fromkeys(ends)), vocabulary, tuple(notes))

    def generation_config(self) -> dict[str, Any]:
        """Content of generation_config.json: the tokens that begin and end a text."""
        result: dict[str, Any] = {}
        if "bos" in self.ids:
            result["bos_token_id"] = self.ids["bos"]
        if self.ends:
            result["eos_token_id"] = list(self.ends)
        return result


def _named(header: GgufHeader, vocabulary: Vocabulary) -> tuple[dict[str, int], list[str]]:
    """Ids by the keys of the metadata, and a note of each that is no token."""
    count = len(vocabulary.tokens)
    ids, notes = {}, []
    if header.metadata.get("tokenizer.ggml.model") == "llama":
        ids = {
            name: number
            for name, number in SENTENCEPIECE.items()
            if number < count and vocabulary.kinds[number] in (UNKNOWN, CONTROL)
        }
    for name in NAMED:
        key = f"tokenizer.ggml.{name}_token_id"
        if key not in header.metadata:
            continue
        number = header.whole(key)
        if number is not None and 0 <= number < count:
            ids[name] = number
        else:
            shown = brief(header.metadata[key])
            lie = f"{key}={shown} is not the id of one of {count} tokens"
            notes.append(f"{lie}; it is ignored.")
    return ids, notes


def _no_ends(texts: Iterable[str]) -> dict[str, int]:
    """Tokens that end nothing in the company of others, with the type that they have then."""
    texts = set(texts)
    result = {}
    if "<|end|>" in texts and texts & CALLS and texts & RETURNS:
        result["<|end|>"] = USER_DEFINED
    if {"</s>", "<|tool_response>"} <= texts:
        result["</s>"] = NORMAL
    return result
