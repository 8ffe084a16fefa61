"""The kinds of `tokenizer.ggml.pre`: what each makes of one text, and which names are alike.

The pieces were made with the `regex` package from the expressions that llama.cpp lists for each
name (src/llama-vocab.cpp), applied one after the other as it does; 1,500 more texts agreed.
"""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models

from converters.sources.gguf_pretokenizers import KINDS, Kind

TEXT = "I'll PAY1234.5€ — x==y!\n\n  日 It's~ ïHTs\tа "
SPLITS = {
    "gpt-2": "I|'ll| PAY|1234|.|5|€| —| x|==|y|!|\n\n | 日| It|'s|~| ïHTs|\t|а| ",
    "smollm": "I|'ll| PAY|1|2|3|4|.|5|€| —| x|==|y|!|\n\n | 日| It|'s|~| ïHTs|\t|а| ",
    "llama-bpe": "I|'ll| PAY|123|4|.|5|€| —| x|==|y|!\n\n| | 日| It|'s|~| ïHTs|\tа| ",
    "qwen2": "I|'ll| PAY|1|2|3|4|.|5|€| —| x|==|y|!\n\n| | 日| It|'s|~| ïHTs|\tа| ",
    "tekken": "I|'ll| PAY|1|2|3|4|.|5|€| —| x|==|y|!\n\n| | 日| It|'s|~| ï|HTs|\tа| ",
    "default": "I|'|ll| PAY|123|4|.|5|€| |—| x|==|y|!|\n\n | 日| It|'|s|~| ïHTs|\t|а| ",
    "falcon": "I|'|ll| PAY|123|4|.|5|€| |—| x|==|y|!|\n\n | 日| It|'|s|~| ïHTs|\t|а| ",
    "deepseek-llm": "I|'|ll| PAY|1234|.|5|€| |—| x|==|y|!|\n|\n|  |日| It|'|s|~| ï|HTs|\tа| ",
    "deepseek-coder": "I|'|ll| PAY|1|2|3|4|.|5|€| |—| x|==|y|!|\n|\n| | |日| It|'|s|~| ïHTs|\tа| ",
    "deepseek-v3": "I|'ll| PAY|123|4|.|5|€| —| x|==|y|!\n\n|  |日| It|'s|~| ïHTs|\tа| ",
    "gpt-4o": "I'll| PAY|123|4|.|5|€| —| x|==|y|!\n\n| | 日| It's|~| ï|HTs|\tа| ",
    "tiny_aya": "I'll| PAY|1|234|.|5|€| —| x|==|y|!\n\n| | 日| It's|~| ï|HTs|\tа| ",
    "laguna": "I|'ll| PAY|1|2|3|4|.|5|€| —| x|==|y|!|\n\n| | 日| It|'s|~| ïHTs|\tа| ",
    "seed-coder": "I|'ll| PAY|1|2|3|4|.|5|€| —| x|==|y|!|\n\n| | 日| It|'s|~| ïHTs|\tа| ",
    "exaone-moe": "I|'ll| PAY|1|2|3|4|.|5|€| —| x|==|y|!\n|\n| | 日 It|'s|~| ïHTs|\tа| ",
    "chameleon": "I|'|ll| PAY|1|2|3|4|.|5|€| |—| x|=|=|y|!|\n|\n|  |日| It|'|s|~| ïHTs|\t|а| ",
    "poro-chat": "I'll| PAY1234|.|5€| —| x==y|!\n\n | 日| It's~| ïHTs|\t|а| ",
    "viking": "I'll| PAY|1|2|3|4|.|5|€| —| x==y|!\n\n | 日| It's~| ïHTs|\t|а| ",
}
SAME = {
    "qwen2": ("deepseek-r1-qwen", "megrez"),
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "pixtral", "lfm2"),
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    "gpt-2": ("phi-2", "mpt", "olmo", "jais", "trillion", "exaone4", "roberta-bpe"),
    "deepseek-v3": ("hunyuan-dense",),
    "gpt-4o": ("llama4",),
}


def split(kind: Kind, text: str) -> list[str]:
    """Pieces in the letters of the text: the last step, bytes to letters, is left out."""
    content = json.loads(Tokenizer(models.BPE()).to_str())
    content["pre_tokenizer"] = kind.pre_tokenizer()
    del content["pre_tokenizer"]["pretokenizers"][-1]
    pre_tokenizer = Tokenizer.from_str(json.dumps(content)).pre_tokenizer
    return [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("name", SPLITS)
def test_pieces(name: str) -> None:
    assert "|".join(split(KINDS[name], TEXT)) == SPLITS[name]


@pytest.mark.parametrize("name", KINDS)
def test_every_expression_is_one_and_loses_nothing(name: str) -> None:
    assert "".join(split(KINDS[name], TEXT)) == TEXT


@pytest.mark.parametrize("name", SAME)
def test_names_of_one_kind(name: str) -> None:
    assert all(KINDS[other] == KINDS[name] for other in SAME[name])


@pytest.mark.parametrize("name", ["smaug-bpe", "dbrx", "chatglm-bpe"])
def test_split_as_llama_but_without_its_other_habits(name: str) -> None:
    assert KINDS[name] == Kind(KINDS["llama-bpe"].patterns)


def test_words_that_are_tokens_are_whole_in_glm4() -> None:
    # llama.cpp of llama-cpp-python 0.3.36 gives "abc" for tokens a, b, c, ab, abc and merge a b.
    glm4 = Kind(KINDS["llama-bpe"].patterns, ignore_merges=True)
    assert KINDS["glm4"] == KINDS["glm5"] == glm4


@pytest.mark.parametrize("name", ["hunyuan", "stablelm2", "solar-open"])
def test_split_as_qwen2_but_without_its_normal_form(name: str) -> None:
    assert KINDS[name] == Kind(KINDS["qwen2"].patterns)
