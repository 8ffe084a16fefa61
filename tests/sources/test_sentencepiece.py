"""SentencePiece vocabularies of GGUF files: the ids that the rule and tokenizer.json give."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from gguf_vocabularies import AWKWARD, TEXTS, rebuild
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
    trainers,
)


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
