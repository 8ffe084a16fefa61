"""Special tokens of GGUF files: by key, by text, of the wrong type, and ids that are no token.

What ends an answer was compared with the lists of llama.cpp (src/llama-vocab.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gguf_files
import pytest
from tokenizers import Tokenizer

from converters.sources import open_source
from sparity_edge.progress import CallContext

CONTROL, NORMAL = 3, 1
KEY = "tokenizer.ggml."


def tokenizer(texts: Sequence[str], kind: int = CONTROL, **keys: Any) -> dict[str, Any]:
    """The plain tokenizer with `texts` as its first tokens; eos is the first of them."""
    plain = gguf_files.plain_tokenizer()
    letters = plain[KEY + "tokens"][len(gguf_files.SPECIAL) :]
    kinds = plain[KEY + "token_type"][len(gguf_files.SPECIAL) :]
    count = gguf_files.VOCAB - len(texts)
    return {
        **plain,
        KEY + "tokens": [*texts, *letters][: gguf_files.VOCAB],
        KEY + "token_type": [CONTROL, *[kind] * (len(texts) - 1), *kinds[:count]],
        KEY + "bos_token_id": None,
        KEY + "eos_token_id": 0,
        **{KEY + key: value for key, value in keys.items()},
    }


ENDS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "by their text": (("<x>", "<|end|>", "<end_of_turn>", "<EOT>"), (0, 1, 2, 3)),
    "of DeepSeek": (("<x>", "<｜end▁of▁sentence｜>", "<|im_start|>"), (0, 1)),
    "of Kimi": (("<x>", "[EOT]", "[EOS]", "<eos>", "_<EOT>"), (0, 2, 3, 4, 1)),
    "in the middle": (("<x>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"), (0, 1, 2, 3)),
    "that end nothing": (("<x>", "<|fim_prefix|>", "<|start|>", "<|channel|>"), (0,)),
    "of gpt-oss": (("<x>", "<|return|>", "<|call|>", "<|end|>"), (0, 1, 2)),
    "of Solar": (("<x>", "<|flush|>", "<|calls|>", "<|end|>"), (0, 1, 2)),
    "with a call alone": (("<x>", "<|call|>", "<|end|>"), (0, 1, 2)),
    "of Gemma": (("</s>", "<|tool_response>", "<turn|>"), (2, 1)),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_ends_an_answer(name: str, write: Callable[..., str]) -> None:
    texts, ends = ENDS[name]
    with open_source(write(tokenizer=tokenizer(texts))) as source:
        assert set(source.config.eos_token_ids) == set(ends)
        assert source.config.eos_token_ids[0] == ends[0]


def test_keys_end_an_answer_too(write: Callable[..., str]) -> None:
    keys = {"eot_token_id": 1, "eom_token_id": 2, "fim_sep_token_id": 3}
    with open_source(write(tokenizer=tokenizer(["<a>", "<b>", "<c>", "<d>"], **keys))) as source:
        assert source.config.eos_token_ids == (0, 1, 2, 3)


@pytest.mark.parametrize("text", ["<|im_end|>", "<|endoftext|>", "<|fim_prefix|>", "</s>"])
@pytest.mark.parametrize("kind", [NORMAL, 4])
def test_control_tokens_of_another_type(write: Callable[..., str], text: str, kind: int) -> None:
    with open_source(write(tokenizer=tokenizer(["<x>", text], kind))) as source:
        made = Tokenizer.from_str(source.tokenizer_files["tokenizer.json"].decode())
    assert made.encode(f"a{text}b").ids[1] == 1
    assert made.decode([1]) == ""


def test_parts_of_an_answer_are_shown(write: Callable[..., str]) -> None:
    with open_source(write(tokenizer=tokenizer(["<x>", "<|channel|>"]))) as source:
        made = Tokenizer.from_str(source.tokenizer_files["tokenizer.json"].decode())
    assert made.decode([1]) == "<|channel|>"


def test_phi3_swallows_spaces_after_special_tokens(write: Callable[..., str]) -> None:
    metadata = {"general.name": "Phi-3 mini"}
    texts = ["<|endoftext|>", "<|end|>"]
    with open_source(write(tokenizer=tokenizer(texts), metadata=metadata)) as source:
        made = Tokenizer.from_str(source.tokenizer_files["tokenizer.json"].decode())
    space, letter = made.encode(" a").ids
    assert made.encode("<|end|> a").ids == [1, letter]
    assert made.encode("<|endoftext|> a").ids == [0, space, letter]


@pytest.mark.parametrize("name", ["bos", "eos", "eot", "unknown", "padding", "fim_pad"])
@pytest.mark.parametrize("value", [2**32 - 1, gguf_files.VOCAB, -1, "x", 1.5, True, [1]])
def test_ids_that_are_no_token(write: Callable[..., str], name: str, value: Any) -> None:
    heard: list[str] = []
    path = write(metadata={f"{KEY}{name}_token_id": value})
    with open_source(path, CallContext(notify=heard.append)) as source:
        assert max(source.config.eos_token_ids) < gguf_files.VOCAB
        assert source.config.bos_token_id == (None if name == "bos" else 0)
    (note,) = heard
    assert f"{name}_token_id=" in note
    assert note.endswith("is not the id of one of 288 tokens; it is ignored.")


def test_ids_of_sentencepiece_by_default(write: Callable[..., str]) -> None:
    """Where a key is missing llama.cpp takes 0, 1 and 2 as the SentencePiece models have them."""
    texts = ["<unk>", "<s>", "<end>", "▁", "a", "▁a"]
    metadata = {
        **gguf_files.plain_tokenizer(),
        **{KEY + "model": "llama", KEY + "tokens": texts, KEY + "token_type": [2, 3, 3, 1, 1, 1]},
        **{KEY + "scores": [0.0] * 6, KEY + "merges": None, KEY + "pre": None},
        **{KEY + "bos_token_id": 2**32 - 1, KEY + "eos_token_id": None},
    }
    with open_source(write(tokenizer=metadata)) as source:
        made = Tokenizer.from_str(source.tokenizer_files["tokenizer.json"].decode())
        assert (source.config.bos_token_id, source.config.eos_token_ids) == (1, (2,))
    assert made.encode("a").ids == [1, 5]


def test_no_pre_tokenizer_is_default_with_a_word(write: Callable[..., str]) -> None:
    heard: list[str] = []
    path = write(metadata={KEY + "pre": None})
    with open_source(path, CallContext(notify=heard.append)) as source:
        missing = source.tokenizer_files["tokenizer.json"]
    assert "tokenizer.ggml.pre is missing" in heard[0]
    with open_source(write(metadata={KEY + "pre": "default"})) as source:
        assert source.tokenizer_files["tokenizer.json"] == missing


def test_tokens_without_types_are_normal(write: Callable[..., str]) -> None:
    with open_source(write(metadata={KEY + "token_type": None})) as source:
        made = Tokenizer.from_str(source.tokenizer_files["tokenizer.json"].decode())
    assert len(made.encode("<|im_start|>").ids) > 1
    assert made.encode("<|im_end|>").ids == [3]
