"""Tokenizers rebuilt from GGUF metadata against the pipelines they were made from.

Each original is built here with the classes of the tokenizers library, as the tokenizer.json of
SmolLM2, Llama 3, Qwen2, Mistral Nemo, GPT-2 and Llama 2 have it, and learns its merges from the
texts below. SentencePiece is also compared with its own rule: join the best-scored pair.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf_files
import pytest
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

from converters.sources.gguf_header import read_header
from converters.sources.gguf_tokenizer import make_tokenizer_files
from sparity_edge.errors import SourceError

CONTROL = ("<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>")
USER_DEFINED = ("<tool_call>", "</tool_call>", "日本")
TEXTS = (
    "The river rose slowly, and they've seen it'll reach the old bridge by 1987 or 2024.",
    "In 2024 there were 100 of 1000, in 2023 another 100 of 2000, and 12345 since 1987.",
    "    if count == 10:\n        return count + 1\n\n\n\tprint('done', count)\r\n",
    "snake_case, CamelCase and HTTPServer; a//b, c/*d*/, x != y && y >= z ??? !!!",
    "你好，世界。今天天气很好。 日本語のテキストです。 안녕하세요 세계",
    "Größe, naïve, café, Ångström, Привет мир, Ελληνικά, مرحبا, नमस्ते",
    "👍🏽 👨‍👩‍👧 🇩🇪 and more 🙂🙂🙂",
)
AWKWARD = (
    "",
    " ",
    "   \n \n\n  \t\t x",
    "Hello, world",
    "  The    river       rose" + " " * 40 + "end" + " " * 5,
    "they've IT'LL 's 'S don't we'Re it'd",
    "1 12 123 1234 12345 3.14159 1,000,000 ٣٤٥ ²³ ½ Ⅷ x2y3",
    "café vs cafe\u0301, Å vs A\u030a, e\u0301\u0302, ﬁ, क्षि",
    "你好世界，日本語と日本のテキスト。안녕",
    "👍🏽👨‍👩‍👧‍👦🇩🇪🙂 1️⃣",
    "def f(x):\r\n\treturn x**2  # ok\n\n\n\tif x != 0://\n",
    "<|im_start|>user\nHi<|im_end|>\n<|begin|>",
    "a<|im_end|>b <|im_end|> c<tool_call>\n{}\n</tool_call>日本x <|im_end",
    "\u200b \u00a0\u3000\ufeff\x00\x01 \u2028y",
    "https://example.com/a/b?c=d#e //// /* */ XMLHttpRequest iPhone McDonald ABCdef",
    "aaaaaaaaaaaaaaaaaaaaaaaaa!!!!!!!!!!!!!!!!!----------",
    "\n\n\n\n",
    "\t\t\tx",
    " a",
    "a ",
    "ǅungla ʰʷ ºª",
)

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
        "default": gpt2,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2]),
        "llama-bpe": split_by(CONTRACTIONS + WORD + r"\p{N}{1,3}|" + TAIL),
        "qwen2": split_by(CONTRACTIONS + WORD + r"\p{N}|" + TAIL),
        "tekken": split_by(TEKKEN),
    }[kind]


KINDS = ("default", "smollm", "llama-bpe", "qwen2", "tekken")
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


def files(path: Path, metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """Write the metadata to a GGUF without tensors and rebuild the tokenizer from it."""
    gguf_files.write(path, tokenizer=metadata, weights={})
    return make_tokenizer_files(read_header(path, "the file"))


def rebuild(path: Path, metadata: Mapping[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(files(path, metadata)["tokenizer.json"].decode())


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
    metadata = gguf_files.tokenizer_metadata(original("default").to_str(), bos_token_id=0)
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


def sentencepiece_pieces() -> tuple[list[str], list[float], list[int]]:
    """Pieces, scores and types as a SentencePiece BPE model holds them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    letters = sorted(
        {letter for text in TEXTS for letter in text if ord(letter) < 0x2000} - {" "} | {"▁"}
    )
    tokenizer.train_from_iterator(
        [*TEXTS, "aaaa aaaaaaaa      x"] * 3,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=letters, show_progress=False),
    )
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    # As in every SentencePiece model, the letters of a piece are pieces too.
    merged = [text for text in dict.fromkeys(map("".join, merges)) if set(text) <= set(letters)]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [*merged, *letters]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(merged) + len(letters))]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(merged) + len(letters))]
    return tokens, scores, kinds


def sentencepiece_ids(text: str, pieces: list[str], scores: list[float]) -> list[int]:
    """SentencePiece's rule: join the neighbours whose piece scores best, leftmost first."""
    ids = {piece: number for number, piece in enumerate(pieces) if number >= 259}
    symbols = list(("▁" + text).replace(" ", "▁")) if text else []
    while True:
        joins = [
            (-scores[ids[left + right]], place)
            for place, (left, right) in enumerate(itertools.pairwise(symbols))
            if left + right in ids
        ]
        if not joins:
            break
        place = min(joins)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    result: list[int] = []
    for symbol in symbols:
        result += [ids[symbol]] if symbol in ids else [3 + byte for byte in symbol.encode()]
    return result


def sentencepiece_metadata(**extra: Any) -> dict[str, Any]:
    tokens, scores, kinds = sentencepiece_pieces()
    keys = {"model": "llama", "tokens": tokens, "scores": scores, "token_type": kinds}
    keys |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, **extra}
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def test_sentencepiece_equals_its_rule(tmp_path: Path) -> None:
    metadata = sentencepiece_metadata()
    tokenizer = rebuild(tmp_path / "m.gguf", metadata)
    pieces, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    for text in (*AWKWARD, *TEXTS, *("a" * count for count in range(12))):
        ids = sentencepiece_ids(text, pieces, scores)
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids, text
        assert tokenizer.encode(text).ids == [1, *ids]
        assert tokenizer.decode(ids) == text


def test_sentencepiece_equals_the_tokenizer_json_of_llama2(tmp_path: Path) -> None:
    metadata = sentencepiece_metadata()
    rebuilt = rebuild(tmp_path / "m.gguf", metadata)
    content = json.loads(rebuilt.to_str())["model"]
    wanted = Tokenizer(
        models.BPE(
            vocab=content["vocab"],
            merges=[tuple(merge) for merge in content["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    wanted.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    wanted.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    wanted.add_special_tokens(["<unk>", "<s>", "</s>"])
    wanted.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    for text in (*AWKWARD, "<s>Hi</s> there</s>x <unk>"):
        ids = wanted.encode(text).ids
        assert rebuilt.encode(text).ids == ids, text
        assert rebuilt.decode(ids) == wanted.decode(ids)


def test_sentencepiece_with_listed_merges_and_no_prefix(tmp_path: Path) -> None:
    merges = ["t h", "th e", "▁ the"]
    metadata = sentencepiece_metadata()
    del metadata["tokenizer.ggml.scores"]
    known = set(metadata["tokenizer.ggml.tokens"])
    for piece in ("th", "the", "▁the"):
        if piece not in known:
            metadata["tokenizer.ggml.tokens"].append(piece)
            metadata["tokenizer.ggml.token_type"].append(1)
    metadata["tokenizer.ggml.merges"] = merges
    metadata["tokenizer.ggml.add_space_prefix"] = False
    tokenizer = rebuild(tmp_path / "m.gguf", metadata)
    assert tokenizer.encode("the the", add_special_tokens=False).tokens == ["the", "▁the"]
    assert tokenizer.decode(tokenizer.encode("the the").ids) == "the the"


PLAIN = "tokenizer.ggml."
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "bert"}, "model='bert'"),
    "no model": ({"model": None}, "lacks tokenizer.ggml.model"),
    "kind": ({"pre": "falcon"}, "pre='falcon' is not supported; use one of default"),
    "no kind": ({"pre": None}, "lacks tokenizer.ggml.pre"),
    "no tokens": ({"tokens": None}, "lacks tokenizer.ggml.tokens"),
    "no types": ({"token_type": None}, "lacks tokenizer.ggml.token_type"),
    "types shorter than tokens": ({"token_type": [1, 1, 1]}, "3 entries .* but there are 288"),
    "types that are texts": ({"token_type": ["a"]}, "not a list of numbers"),
    "no merges": ({"merges": None}, "lacks tokenizer.ggml.merges"),
    "merge of no tokens": ({"merges": ["t h", "q zz"]}, "'q zz', which does not join"),
    "merge without space": ({"merges": ["th"]}, "'th', which does not join"),
    "merge of one": ({"merges": ["t "]}, "does not join"),
    "flag": ({"add_bos_token": "yes"}, "add_bos_token='yes' is not true or false"),
    "long token": ({"tokens": ["x" * 2000], "token_type": [1]}, "a token of 2000 letters"),
    "begin": ({"bos_token_id": 288, "add_bos_token": True}, "bos_token_id=288 is not the id"),
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
