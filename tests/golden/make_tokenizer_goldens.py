"""Make tokenizer_files.json: what transformers makes of the folders of tokenizer_folders.py.

Run by hand, never by the tests, in an environment of its own:

    pip install transformers
    python tests/golden/make_tokenizer_goldens.py

The golden in the repository: transformers 5.24.0. A folder that it refuses has null.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "shared"))

import tokenizer_folders as folders  # noqa: E402


def describe(path: Path) -> dict[str, Any]:
    """Ids, texts without special tokens, and tokens by part."""
    (path / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in folders.TEXTS]
    added = tokenizer.added_tokens_decoder
    return {
        "ids": ids,
        "decoded": [tokenizer.decode(each, skip_special_tokens=True) for each in ids],
        "special": sorted(key for key, token in added.items() if token.special),
        "named": dict(sorted(tokenizer.special_tokens_map.items())),
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "size": len(tokenizer),
    }


def main() -> None:
    """Write the golden beside this script."""
    found: dict[str, Any] = {}
    for name in folders.CASES:
        with tempfile.TemporaryDirectory() as work:
            path = folders.write(Path(work), name)
            try:
                found[name] = describe(path)
            except (TypeError, ValueError, AttributeError) as error:
                print(f"{name}: {error}")
                found[name] = None
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(each)}" for name, each in found.items())
    (HERE / "tokenizer_files.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
