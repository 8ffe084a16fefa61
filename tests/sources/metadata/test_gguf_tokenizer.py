"""Tokenizers rebuilt from GGUF metadata against the pipelines they were made from.

Each original is built here with the classes of the tokenizers library, as the tokenizer.json of
SmolLM2, Llama 3, Qwen2, Mistral Nemo, GPT-2 and Llama 2 have it, and learns its merges from the
texts below. SentencePiece is also compared with its own rule: join the best-scored pair.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf_files
import pytest
from gguf_vocabularies import AWKWARD, CONTROL, TEXTS, USER_DEFINED, files, rebuild
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from sparity_edge.errors import SourceError

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+|"
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer:
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return {
        "gpt-2": gpt2,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2]),
        "llama-bpe": split_by(CONTRACTIONS + WORD + r"\p{N}{1,3}|" + TAIL),
        "qwen2": split_by(CONTRACTIONS + WORD + r"\p{N}|" + TAIL),
        "tekken": split_by(TEKKEN),
    }[kind]


KINDS = ("gpt-2", "smollm", "llama-bpe", "qwen2", "tekken")
TAKES_WORDS_WHOLE = ("llama-bpe", "tekken")
ADDS_BOS = ("llama-bpe", "tekken")


def original(kind: str) -> Tokenizer:
    """A byte-level tokenizer of one kind that learned 500 tokens."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind in TAKES_WORDS_WHOLE))
    tokenizer.pre_tokenizer = pre_tokenizer(kind)
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS] * 3, trainer)
    content = json.loads(tokenizer.to_str())
    # A token that no merge makes: found only where a word that is a token is taken whole.
    content["model"]["vocab"]["Ġriverbank"] = len(content["model"]["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in USER_DEFINED])
    if kind in ADDS_BOS:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
        )
    return tokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_byte_level_equals_its_original(kind: str, tmp_path: Path) -> None:
    wanted = original(kind)
    metadata = gguf_files.tokenizer_metadata(
        wanted.to_str(), pre=kind, bos_token_id=0, eos_token_id=1
    )
    found = rebuild(tmp_path / "m.gguf", metadata)
    for text in (*AWKWARD, *TEXTS, " riverbank", "x riverbank riverbanks"):
        ids = wanted.encode(text).ids
        assert found.encode(text).ids == ids, text
        for skip in (True, False):
            assert found.decode(ids, skip_special_tokens=skip) == wanted.decode(
                ids, skip_special_tokens=skip
            )
    bare = wanted.encode(" riverbank", add_special_tokens=False).ids
    assert (len(bare) == 1) == (kind in TAKES_WORDS_WHOLE)


def test_kinds_differ(tmp_path: Path) -> None:
    """The comparison above would not notice a rebuilt tokenizer that ignores the kind."""
    metadata = gguf_files.tokenizer_metadata(original("gpt-2").to_str(), bos_token_id=0)
    rebuilt = {
        kind: rebuild(tmp_path / "m.gguf", {**metadata, "tokenizer.ggml.pre": kind})
        for kind in KINDS
    }
    outcomes = {
        kind: tuple(tuple(tokenizer.encode(text).tokens) for text in AWKWARD)
        for kind, tokenizer in rebuilt.items()
    }
    assert len(set(outcomes.values())) == len(KINDS)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("eos", [True, False])
def test_begin_and_end_are_added_as_the_flags_say(bos: bool, eos: bool, tmp_path: Path) -> None:
    flags = {"tokenizer.ggml.add_bos_token": bos, "tokenizer.ggml.add_eos_token": eos}
    content = files(tmp_path / "m.gguf", gguf_files.plain_tokenizer() | flags)
    tokenizer = Tokenizer.from_str(content["tokenizer.json"].decode())
    letter = tokenizer.token_to_id("x")
    assert tokenizer.encode("x").ids == [0] * bos + [letter] + [1] * eos
    assert tokenizer.encode("x", add_special_tokens=False).ids == [letter]
    settings = json.loads(content["tokenizer_config.json"])
    assert (settings["add_bos_token"], settings["add_eos_token"]) == (bos, eos)
    assert (settings["bos_token"], settings["eos_token"]) == ("<s>", "</s>")
    template = gguf_files.plain_tokenizer()["tokenizer.chat_template"]
    assert content["chat_template.jinja"].decode() == template


def test_fillers_are_no_tokens(tmp_path: Path) -> None:
    tokenizer = rebuild(tmp_path / "m.gguf", gguf_files.plain_tokenizer())
    assert tokenizer.get_vocab_size() < gguf_files.VOCAB
    assert len(tokenizer.encode("[PAD280]").ids) > 1
    assert tokenizer.decode([gguf_files.VOCAB - 1]) == ""


def test_no_chat_template(tmp_path: Path) -> None:
    metadata = gguf_files.plain_tokenizer()
    del metadata["tokenizer.chat_template"]
    assert "chat_template.jinja" not in files(tmp_path / "m.gguf", metadata)


PLAIN = "tokenizer.ggml."
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "bert"}, "model='bert'"),
    "no model": ({"model": None}, "lacks tokenizer.ggml.model"),
    "kind": ({"pre": "kimi-k2"}, "pre='kimi-k2' is not supported"),
    "long kind": ({"pre": "x" * 500}, "pre='x{60}' is not supported"),
    "no tokens": ({"tokens": None}, "lacks tokenizer.ggml.tokens"),
    "types shorter than tokens": ({"token_type": [1, 1, 1]}, "3 entries .* but there are 288"),
    "types that are texts": ({"token_type": ["a"]}, "not a list of numbers"),
    "no merges": ({"merges": None}, "lacks tokenizer.ggml.merges"),
    "merge of no tokens": ({"merges": ["t h", "q zz"]}, "'q zz', which does not join"),
    "merge without space": ({"merges": ["th"]}, "'th', which does not join"),
    "merge of one": ({"merges": ["t "]}, "does not join"),
    "flag": ({"add_bos_token": "yes"}, "add_bos_token='yes' is not true or false"),
    "long token": ({"tokens": ["x" * 2000], "token_type": [1]}, "a token of 2000 letters"),
    "no scores": ({"model": "llama", "merges": None}, "lacks tokenizer.ggml.scores"),
    "scores": ({"model": "llama", "merges": None, "scores": [0.5, 1.0]}, "2 entries"),
    "infinite scores": (
        {"model": "llama", "merges": None, "scores": [float("nan")] * 288},
        "an entry that is no number",
    ),
    "long template": ({"template": "x" * (2 << 20)}, "longer than a template"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    change, sentence = REFUSED[name]
    metadata = gguf_files.plain_tokenizer()
    for key, value in change.items():
        full = "tokenizer.chat_template" if key == "template" else PLAIN + key
        metadata[full] = value
    with pytest.raises(SourceError, match=sentence):
        files(tmp_path / "m.gguf", metadata)
