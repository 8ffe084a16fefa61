"""Vocabulary files of llama.cpp: are the ids that we make of texts those that are expected?

Run by hand, never by the tests, since the files are neither ours nor on a package registry:

    PYTHONPATH=.:tests python tests/golden/compare_vocabularies.py FOLDER [--write]

FOLDER holds `*.gguf` with tokens and no weights, and beside them `*.gguf.inp` (texts) and
`*.gguf.out` (their ids), as models/ of llama.cpp does. Where llama-cpp-python can be imported
(0.3.36), as many further texts as --texts says, drawn from those of gguf_vocabularies.py and of the
files, are encoded by both sides, and both say which tokens begin a text and end an answer; with
`--kinds FILE` also by the vocabulary of GPT-2 under every name of tokenizer.ggml.pre. Printed are
the differences; `--write` keeps the counts in vocabularies.json. Of texts that are not in normal
form NFC the tokenizer's own rule counts, which llama.cpp leaves out. It does not take U+00A0 and
U+2028 for spaces in the kinds of DeepSeek, nor letters behind digits for none of their end in
tiny_aya, as the models' own expressions do.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf_vocabularies import AWKWARD, TEXTS

from converters.sources.gguf_header import read_header
from converters.sources.gguf_pretokenizers import KINDS
from converters.sources.gguf_special import SpecialTokens
from converters.sources.gguf_tokenizer import make_tokenizer_files
from converters.sources.gguf_vocabulary import Vocabulary
from sparity_edge.errors import SparityError
from sparity_edge.text.tokenizer import Tokenizer

RESULTS = Path(__file__).with_name("vocabularies.json")
BETWEEN = "\n__ggml_vocab_test__\n"
FURTHER = ("Hello world zqzq", "zqzq zqxj zqxjzqzq")
SHOWN = 3  # differences of a file
WORDS = ("ĠHelloĠworld", "zqzq", "Ġzqxj")  # tokens that no merge makes
END = "<|endoftext|>"  # of GPT-2, which begins texts too
# Of a model that llama.cpp opens.
SIZES = (
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "head_count"),
    "head_count_kv",
)


class Theirs:
    """The vocabulary of a file in llama.cpp."""

    def __init__(self, path: Path) -> None:
        import llama_cpp

        self._cpp, self._model = llama_cpp, llama_cpp.Llama(str(path), vocab_only=True)

    def encode(self, text: str, *, whole: bool = False) -> list[int]:
        """The ids of a text; with `whole` those at its beginning and end too."""
        ids: list[int] = self._model.tokenize(text.encode(), add_bos=whole, special=True)
        return ids

    def ends(self) -> set[int]:
        """The tokens that end an answer."""
        vocabulary = self._cpp.llama_model_get_vocab(self._model.model)
        tokens = range(self._model.n_vocab())
        return {each for each in tokens if self._cpp.llama_vocab_is_eog(vocabulary, each)}


def ours(path: Path) -> tuple[Tokenizer, set[int]]:
    """The tokenizer that a GGUF file stands for here, and the tokens that end an answer."""
    header = read_header(path, path.name)
    special = SpecialTokens.read(header, Vocabulary.read(header))
    return Tokenizer.from_files(make_tokenizer_files(header, special)), set(special.ends)


def expected(path: Path) -> list[tuple[str, list[int]]]:
    """The texts beside a file and their ids, if there are any."""
    texts, ids = (path.with_name(path.name + suffix) for suffix in (".inp", ".out"))
    if not texts.is_file():
        return []
    lines = ids.read_text(encoding="utf-8").split("\n")
    pieces = texts.read_bytes().decode("utf-8").split(BETWEEN)
    return [(text, [int(each) for each in line.split()]) for text, line in zip(pieces, lines)]


def further(texts: list[str], count: int) -> Iterator[str]:
    """Texts put together of spans of others, in normal form NFC (which llama.cpp leaves out)."""
    draw = random.Random(0)
    for _ in range(count):
        spans = []
        for text in draw.choices(texts, k=draw.randint(1, 4)):
            start = draw.randint(0, max(0, len(text) - 1))
            spans.append(text[start : start + draw.randint(1, 30)])
        yield unicodedata.normalize("NFC", "".join(spans))


def each_kind(path: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """A byte-level vocabulary under every name of tokenizer.ggml.pre, with words beside its merges.

    Args:
        path: the file of the vocabulary.
        folder: where files are written, one at a time.
    """
    metadata = read_header(path, path.name).metadata
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(kinds, np.ndarray)
    for name in sorted(KINDS):
        target = folder / f"{name}.gguf"
        writer = gguf.GGUFWriter(target, "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_list([*tokens, *WORDS])
        writer.add_token_types([*kinds.tolist(), *(gguf.TokenType.NORMAL for _ in WORDS)])
        writer.add_token_merges(metadata["tokenizer.ggml.merges"])
        for add in (writer.add_bos_token_id, writer.add_eos_token_id):
            add(tokens.index(END))
        for add in SIZES:
            getattr(writer, f"add_{add}")(32)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        yield name, target
        target.unlink()


def differences(pairs: list[tuple[str, list[int]]], tokenizer: Tokenizer) -> int:
    """How many texts have other ids here; the first are printed."""
    found = [
        (text, wanted, got)
        for text, wanted in pairs
        if (got := tokenizer.encode(text, add_special_tokens=False)) != wanted
    ]
    for text, wanted, got in found[:SHOWN]:
        print(f"    {text!r}\n      theirs {wanted}\n      ours   {got}")
    return len(found)


def compare(path: Path, count: int) -> dict[str, Any]:
    """What came of one file."""
    try:
        tokenizer, ends = ours(path)
    except SparityError as error:
        return {"refused": str(error).removeprefix(f"{path.name}: ")}
    pairs = expected(path)
    normal = [pair for pair in pairs if unicodedata.is_normalized("NFC", pair[0])]
    row: dict[str, Any] = {"texts": len(normal), "differ": differences(normal, tokenizer)}
    row["texts_not_in_nfc"] = len(pairs) - len(normal)
    if importlib.util.find_spec("llama_cpp"):
        theirs = Theirs(path)
        texts = list(further([*TEXTS, *AWKWARD, *(text for text, _ in pairs), *FURTHER], count))
        row["drawn"] = len(texts)
        row["drawn_differ"] = differences(
            [(each, theirs.encode(each)) for each in texts], tokenizer
        )
        row["begins_alike"] = theirs.encode("Hi", whole=True) == tokenizer.encode("Hi")
        row["ends_alike"] = theirs.ends() == ends
    return row


def main() -> int:
    """Compare all files of the folder that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--kinds", type=Path, metavar="FILE", help="the vocabulary of GPT-2")
    arguments = parser.parse_args()
    rows = {}
    if arguments.kinds is not None:
        with tempfile.TemporaryDirectory() as folder:
            for name, path in each_kind(arguments.kinds, Path(folder)):
                rows[f"pre {name}"] = compare(path, arguments.texts)
                print(name, json.dumps(rows[f"pre {name}"]), flush=True)
    for path in sorted(arguments.folder.glob("*.gguf")):
        print(path.name, flush=True)
        rows[path.name] = compare(path, arguments.texts)
        print("   ", json.dumps(rows[path.name]), flush=True)
    if arguments.write:
        lines = (f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return int(any(row.get("differ") or row.get("drawn_differ") for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
