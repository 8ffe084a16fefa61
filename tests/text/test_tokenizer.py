"""Tokenizer: decoding in pieces equals decoding at once; damaged files end in a sentence."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors

from sparity_edge.errors import OptionError, SourceError, TemplateError
from sparity_edge.text import tokenizer_files as module
from sparity_edge.text.tokenizer import Tokenizer

SPECIAL = ["<s>", "</s>", "<|im_end|>"]
AWKWARD = [
    "Hello, world",
    "naïve café",
    "日本語のテキスト",
    "👩‍👩‍👧‍👦 family 🇩🇪 é",
    "tab\tnew\n\n  spaces   ",
    "\N{REPLACEMENT CHARACTER} stays",
    " leading",
    "x\u0000y",
]


def byte_level() -> dict[str, bytes]:
    """One token a byte, a few merges, three special tokens and <s> in front of a text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate(letters)}
    for pair in ("he", "ll", "ðŁ"):
        vocab[pair] = len(vocab)
    merges = [("h", "e"), ("l", "l"), ("ð", "Ł")]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    bos = ("<s>", backend.token_to_id("<s>"))
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[bos])
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": None}
    return {
        "tokenizer.json": backend.to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }


def sentencepiece() -> dict[str, bytes]:
    """As Llama 2: a space is ▁, what is unknown becomes bytes, the first space is dropped."""
    pieces = ["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "H", "i", "▁Hi", "t", "h", "e", "▁the"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(SPECIAL)
    return {"tokenizer.json": backend.to_str().encode()}


BYTES = Tokenizer.from_files(byte_level())
PIECES = Tokenizer.from_files(sentencepiece())


def in_pieces(tokenizer: Tokenizer, ids: list[int], **options: Any) -> list[str]:
    stream = tokenizer.stream(**options)
    return [*(stream.push(token) for token in ids), stream.flush()]


@pytest.mark.parametrize("text", AWKWARD)
def test_round_trip(text: str) -> None:
    ids = BYTES.encode(text)
    assert ids[0] == BYTES.bos_token_id
    assert BYTES.encode(text, add_special_tokens=False) == ids[1:]
    assert BYTES.decode(ids) == text
    pieces = in_pieces(BYTES, ids)
    assert "".join(pieces) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
        assert pieces[-1] == ""  # nothing was held back longer than needed


@given(st.lists(st.integers(0, 270), max_size=30), st.booleans())
@settings(deadline=None)
def test_pieces_of_any_bytes_equal_the_whole(ids: list[int], skip: bool) -> None:
    whole = BYTES.decode(ids, skip_special_tokens=skip)
    assert "".join(in_pieces(BYTES, ids, skip_special_tokens=skip)) == whole


WORDS = st.sampled_from(["Hi", "▁Hi", "▁the", "▁", "<s>", "</s>", "日", "🙂", "é"])


def sentencepiece_ids(words: list[str]) -> list[int]:
    """Ids of words; one that is a token is that token."""
    ids = []
    for word in words:
        known = PIECES.encode(word, add_special_tokens=False)
        token = PIECES._backend.token_to_id(word)
        ids += [token] if token is not None else known
    return ids


@given(st.lists(WORDS))
@settings(deadline=None)
def test_pieces_of_sentencepiece_equal_the_whole(words: list[str]) -> None:
    ids = sentencepiece_ids(words)
    assert "".join(in_pieces(PIECES, ids)) == PIECES.decode(ids)


def test_a_character_appears_when_its_last_byte_does() -> None:
    ids = BYTES.encode("a😀b", add_special_tokens=False)
    assert in_pieces(BYTES, ids) == ["a", "", "", "😀", "b", ""]


def test_broken_bytes_become_replacement_characters() -> None:
    ids = BYTES.encode("a😀", add_special_tokens=False)[:-1]
    assert in_pieces(BYTES, ids) == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]
    stream = BYTES.stream()
    assert [stream.push(token) for token in ids[1:]] == ["", ""]
    stream.flush()
    assert stream.push(ids[0]) == "a"  # a flushed stream is a fresh one


def test_a_leading_space_survives_a_special_token() -> None:
    ids = [1, *(PIECES._backend.token_to_id(word) for word in ("▁Hi", "▁the"))]
    assert in_pieces(PIECES, ids) == ["", "Hi", " the", ""]


@given(st.lists(WORDS), st.lists(WORDS), st.sampled_from([0, 0, 30]))
@settings(deadline=None)
def test_a_continuation_is_what_the_whole_has_beyond_its_context(
    before: list[str], after: list[str], repeated: int
) -> None:
    context = sentencepiece_ids(before * (1 + repeated))
    ids = sentencepiece_ids(after)
    whole, known = PIECES.decode([*context, *ids]), PIECES.decode(context)
    pieces = in_pieces(PIECES, ids, context=context)
    assert "".join(pieces) == whole[len(known) :]


def test_a_continuation_keeps_its_first_space() -> None:
    hi, the = sentencepiece_ids(["▁Hi", "▁the"])
    assert in_pieces(PIECES, [the], context=[1, hi]) == [" the", ""]
    assert in_pieces(PIECES, [the, hi], context=[1]) == ["the", " Hi", ""]  # nothing stands before
    assert in_pieces(PIECES, [1, the], context=[hi, 2]) == ["", " the", ""]


@pytest.mark.parametrize("tokenizer", [BYTES, PIECES])
def test_a_character_may_begin_in_the_context_and_end_behind_it(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("日" * 40 + "語!", add_special_tokens=False)
    assert in_pieces(tokenizer, ids[-3:], context=ids[:-3]) == ["", "語", "!", ""]
    broken = tokenizer.encode("a\N{REPLACEMENT CHARACTER}", add_special_tokens=False)
    assert "".join(in_pieces(tokenizer, ids[-1:], context=broken)) == "!"


def test_special_tokens() -> None:
    ids = BYTES.encode("hi<|im_end|>", add_special_tokens=False)
    end = ids[-1]
    assert BYTES.is_special(end)
    assert not BYTES.is_special(ids[0])
    assert BYTES.decode(ids) == "hi"
    assert BYTES.decode(ids, skip_special_tokens=False) == "hi<|im_end|>"
    assert "".join(in_pieces(BYTES, ids)) == "hi"
    assert "".join(in_pieces(BYTES, ids, skip_special_tokens=False)) == "hi<|im_end|>"
    assert BYTES.bos_token_id == BYTES.encode("")[0]
    assert BYTES.eos_token_ids == (BYTES.encode("</s>", add_special_tokens=False)[0],)
    assert PIECES.bos_token_id is None
    assert PIECES.eos_token_ids == ()
    assert BYTES.vocab_size == 256 + 3 + 3


def test_ids_without_a_token_yield_nothing_and_bad_ids_a_sentence() -> None:
    assert BYTES.decode([100_000]) == ""
    assert in_pieces(BYTES, [100_000] * 3) == ["", "", "", ""]
    for bad in ([-1], [1 << 40], ["x"]):
        with pytest.raises(OptionError, match="not all token ids"):
            BYTES.decode(bad)  # type: ignore[arg-type]


def test_endless_broken_bytes_are_shown_in_linear_time() -> None:
    broken = BYTES.encode("é", add_special_tokens=False)[0]
    started = time.monotonic()
    pieces = in_pieces(BYTES, [broken] * 3000)
    assert "".join(pieces) == "\N{REPLACEMENT CHARACTER}" * 3000
    assert time.monotonic() - started < 2


def test_half_a_surrogate_pair_does_not_stop_the_encoder() -> None:
    assert BYTES.decode(BYTES.encode("a\ud800b")) == "a?b"


def test_chat_is_rendered_then_parsed_without_a_second_bos() -> None:
    files = byte_level()
    files["chat_template.jinja"] = (
        b"{{ bos_token }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
        b"{% if add_generation_prompt %}A:{% endif %}"
    )
    tokenizer = Tokenizer.from_files(files)
    messages = [{"role": "user", "content": "hi"}]
    ids = tokenizer.encode_chat(messages)
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<s>hi<|im_end|>A:"
    assert ids.count(ids[0]) == 1
    assert tokenizer.render_chat(messages, add_generation_prompt=False) == "<s>hi<|im_end|>"
    injected = tokenizer.encode_chat([{"role": "user", "content": "a<|im_end|>"}])
    assert injected.count(tokenizer.encode("<|im_end|>", add_special_tokens=False)[0]) == 2


@pytest.mark.parametrize(
    ("value", "template"),
    [
        (None, None),
        ("T", "T"),
        ([{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}], "D"),
        ([5, {"name": []}], None),
    ],
)
def test_where_a_template_stands(value: Any, template: str | None) -> None:
    files = byte_level()
    files["tokenizer_config.json"] = json.dumps({"chat_template": value}).encode()
    assert Tokenizer.from_files(files).chat_template == template
    files["chat_template.jinja"] = b"file"
    assert Tokenizer.from_files(files).chat_template == "file"


def test_without_a_template_chat_says_what_to_use() -> None:
    with pytest.raises(TemplateError, match="sparity-edge generate"):
        BYTES.encode_chat([{"role": "user", "content": "x"}])


def test_truncation_and_padding_of_the_file_do_not_apply() -> None:
    backend = tokenizers.Tokenizer.from_str(byte_level()["tokenizer.json"].decode())
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    tokenizer = Tokenizer.from_files({"tokenizer.json": backend.to_str().encode()})
    assert len(tokenizer.encode("abcdefgh", add_special_tokens=False)) == 8


def test_from_folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(checkpoint("llama_gqa"))
    assert tokenizer.decode(tokenizer.encode("The little model")) == "The little model"
    with pytest.raises(SourceError, match=r"no tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b""),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b"\xff\xfe\x00"),
        ("tokenizer.json", b'{"version": "1.0", "model": {"type": "BPE", "vocab": 5}}'),
        ("tokenizer.json", byte_level()["tokenizer.json"][:-100]),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[1]"),
        ("tokenizer_config.json", b"[" * 100_000),
        ("tokenizer_config.json", b'{"chat_template": 5}'),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default", "template": 5}]}'),
    ],
)
def test_damaged_files_end_in_a_sentence(name: str, content: bytes) -> None:
    files = {**byte_level(), name: content}
    with pytest.raises(SourceError, match=rf"^{name}\b.*\.$"):
        Tokenizer.from_files(files)


def test_huge_files_are_not_parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", dict.fromkeys(module.MAX_BYTES, 1000))
    with pytest.raises(SourceError, match="more than any tokenizer needs"):
        Tokenizer.from_files(byte_level())
    (tmp_path / "tokenizer.json").write_bytes(b" " * 5000)
    with pytest.raises(SourceError, match="more than any tokenizer needs"):
        Tokenizer.from_folder(tmp_path)
