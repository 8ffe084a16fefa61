"""Texts that tokenizers differ on, and tokenizers rebuilt from the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf_files
from tokenizers import (
    Tokenizer,
)

from converters.sources.gguf_header import read_header
from converters.sources.gguf_special import SpecialTokens
from converters.sources.gguf_tokenizer import make_tokenizer_files
from converters.sources.gguf_vocabulary import Vocabulary

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


def files(path: Path, metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """Write the metadata to a GGUF without tensors and rebuild the tokenizer from it."""
    gguf_files.write(path, tokenizer=metadata, weights={})
    header = read_header(path, "the file")
    return make_tokenizer_files(header, SpecialTokens.read(header, Vocabulary.read(header)))


def rebuild(path: Path, metadata: Mapping[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(files(path, metadata)["tokenizer.json"].decode())
