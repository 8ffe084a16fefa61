"""Make pieces.json: small SentencePiece models, and the ids that the package gives to texts.

Run by hand, never by the tests; needs an environment of its own:

    pip install sentencepiece tokenizers gguf
    PYTHONPATH=. python tests/golden/make_piece_goldens.py

The goldens in the repository: sentencepiece 0.2.3. Tried besides with 1,847 texts each, without a
difference: the vocabularies of Llama 2, Phi-3 and Baichuan (llama.cpp's ggml-vocab-*.gguf, made
into tokenizer.model), and models of 1,000 to 4,000 pieces with the rules nmt_nfkc and nfkc.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "text")]

from gguf_vocabularies import AWKWARD, TEXTS  # noqa: E402

MODELS: dict[str, dict[str, Any]] = {
    "as_llama": {},
    "one_space": {"remove_extra_whitespaces": True},
    "no_prefix": {"add_dummy_prefix": False},
    "charsmap": {"normalization_rule_tsv": "rules.tsv", "remove_extra_whitespaces": True},
    "no_bytes": {"byte_fallback": False, "vocab_size": 150},
    "other_ids": {"bos_id": 5, "eos_id": 0, "unk_id": 1, "pad_id": 2},
}
RULES = "41\t61\nE9\t65\n"  # A becomes a, e with an acute accent e
SPACES = (
    "",
    " ",
    "  ",
    " a",
    "a ",
    "  two  words  ",
    "\tx\n y",
    "▁x ▁▁",
    "a▁",
    "<0x41>",
    "aaaaaaa",
)


def main() -> None:
    """Write the goldens beside this script."""
    texts = list(dict.fromkeys([*AWKWARD, *TEXTS, *SPACES]))
    found: dict[str, Any] = {"texts": texts}
    with tempfile.TemporaryDirectory() as work:
        rules = Path(work) / "rules.tsv"
        rules.write_text(RULES)
        for name, options in MODELS.items():
            model = io.BytesIO()
            usual = {
                "vocab_size": 400,
                "byte_fallback": True,
                "normalization_rule_name": "identity",
            }
            usual |= {"remove_extra_whitespaces": False, "minloglevel": 2}
            if "normalization_rule_tsv" in options:
                del usual["normalization_rule_name"]
                options = {**options, "normalization_rule_tsv": str(rules)}
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([each for each in TEXTS for _ in range(20)]),
                model_writer=model, model_type="bpe", hard_vocab_limit=False, **usual | options,
            )  # fmt: skip
            processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
            found[name] = {
                "model": base64.b64encode(model.getvalue()).decode(),
                "ids": [processor.encode(text) for text in texts],
                "named": [processor.bos_id(), processor.eos_id(), processor.unk_id()],
            }
            print(name, processor.vocab_size(), len(model.getvalue()))
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(each)}" for key, each in found.items())
    (HERE / "pieces.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
