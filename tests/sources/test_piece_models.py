"""tokenizer.model without tokenizer.json: the ids of the sentencepiece package, damaged files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.sources.hf import HuggingFaceSource
from converters.sources.pieces.files import files_of_pieces
from converters.sources.pieces.protobuf import MalformedError, fields
from sparity_edge.errors import SourceError
from sparity_edge.text.tokenizer import Tokenizer

# By golden/make_piece_goldens.py.
GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "golden" / "pieces.json").read_text()
)
MODELS = {name: base64.b64decode(each["model"]) for name, each in GOLDEN.items() if name != "texts"}
PATH = Path("tokenizer.model")


def tokenizer_of(content: bytes, **config: Any) -> Tokenizer:
    return Tokenizer.from_files(files_of_pieces(content, PATH, config))


@pytest.mark.parametrize("name", MODELS)
def test_ids_are_those_of_sentencepiece(name: str) -> None:
    tokenizer, golden = tokenizer_of(MODELS[name]), GOLDEN[name]
    bos, eos, _ = golden["named"]
    for text, ids in zip(GOLDEN["texts"], golden["ids"], strict=True):
        if name == "charsmap" and "\u030a" in text:
            continue  # a combining mark behind a letter that is mapped
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
        assert tokenizer.encode(text) == [bos, *ids]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids) == (bos, (eos,))


def test_texts_come_back_with_the_spaces_in_front_of_them() -> None:
    tokenizer = tokenizer_of(MODELS["as_llama"])
    for text in GOLDEN["texts"]:
        if "▁" not in text:
            assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_folder_has_the_last_word() -> None:
    tokenizer = tokenizer_of(MODELS["as_llama"], add_bos_token=False, add_eos_token=True)
    ids = GOLDEN["as_llama"]["ids"][3]
    assert tokenizer.encode(GOLDEN["texts"][3]) == [*ids, 2]
    tokenizer = tokenizer_of(MODELS["as_llama"], eos_token="<|end|>")
    (added,) = tokenizer.eos_token_ids
    assert tokenizer.encode("a<|end|>", add_special_tokens=False)[-1] == added


def test_a_folder_without_tokenizer_json(tmp_path: Path) -> None:
    folder = tiny.build(tmp_path / "m", "llama_gqa")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(SourceError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        HuggingFaceSource(folder, "m")
    (folder / "tokenizer.model").write_bytes(MODELS["no_bytes"])
    source = HuggingFaceSource(folder, "m")
    assert folder / "tokenizer.model" in source.files
    assert "chat_template.jinja" in source.tokenizer_files
    tokenizer = Tokenizer.from_files(source.tokenizer_files)
    ids = GOLDEN["no_bytes"]["ids"]
    texts = GOLDEN["texts"]
    assert [tokenizer.encode(text, add_special_tokens=False) for text in texts] == ids


def test_other_types_are_refused_by_name() -> None:
    piece = b"\x0a\x03\x0a\x01a"
    for kind, name in ((1, "unigram"), (3, "word"), (4, "char"), (9, "9")):
        trainer = bytes([0x12, 2, 0x18, kind])
        with pytest.raises(SourceError, match=f"its type is {name}, and only bpe is supported"):
            files_of_pieces(piece + trainer, PATH, {})
    suffixes = bytes([0x12, 5, 0x18, 2, 0xC0, 1, 1])
    with pytest.raises(SourceError, match="spaces in a way of its own"):
        files_of_pieces(piece + suffixes, PATH, {})


@pytest.mark.parametrize(
    "content",
    [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"IQ== 0\nIg== 1\n"],
)
def test_what_is_no_model(content: bytes) -> None:
    with pytest.raises(SourceError, match="no SentencePiece model"):
        files_of_pieces(content, PATH, {})


@settings(max_examples=40)
@given(st.integers(0, 6000), st.integers(0, 255), st.booleans())
def test_damaged_models_are_refused_or_read(place: int, byte: int, cut: bool) -> None:
    content = bytearray(MODELS["no_bytes"])
    content[place % len(content)] = byte
    if cut:
        del content[place % len(content) :]
    try:
        files = files_of_pieces(bytes(content), PATH, {})
        Tokenizer.from_files(files).encode("The river rose")
    except SourceError:
        pass


@given(st.binary(max_size=64))
def test_any_bytes_end(content: bytes) -> None:
    try:
        total = sum(1 for _ in fields(content))
    except MalformedError:
        return
    assert total <= len(content)
