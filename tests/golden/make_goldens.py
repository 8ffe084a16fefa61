"""Make tiny/*.npz and smollm2.npz: what transformers computes, for tests to compare with.

Run by hand, never by the tests; needs an environment of its own:

    pip install torch==2.13.0 transformers accelerate gguf ml_dtypes
    python tests/golden/make_goldens.py tiny [FAMILY ...]
    python tests/golden/make_goldens.py smollm2 FOLDER/SmolLM2-135M-Instruct.Q4_1.gguf

Goldens in the repository: transformers 5.23.0, of families added later 5.24.0. Everything is
computed in float32 with eager attention, always over the whole text (no KV cache), so nothing of
the cache logic is shared. Greedy texts are refused if the two best logits ever come so close that
rounding could swap them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import smollm2_texts as texts  # noqa: E402
import tiny  # noqa: E402

GREEDY_TOKENS = 32
SMOLLM2_COLUMNS = 256
LEAST_MARGIN = 3e-4  # between the two best logits, as a part of the largest; tests allow 1e-5


def logits_of(model: Any, ids: list[int]) -> np.ndarray:
    """(positions, vocab_size) float32."""
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def greedy(model: Any, ids: list[int], count: int, eos: tuple[int, ...] = ()) -> list[int]:
    """`count` greedy tokens, or fewer when an end-of-text token (kept) comes first."""
    new: list[int] = []
    while len(new) < count and not (new and new[-1] in eos):
        row = logits_of(model, ids + new)[-1]
        second, first = np.partition(row, -2)[-2:]
        if first - second < LEAST_MARGIN * np.abs(row).max():
            raise SystemExit(f"token {len(new)} is undecided ({first} against {second}).")
        new.append(int(row.argmax()))
    return new


def make_tiny(family: str, out: Path) -> None:
    """The file of all cases whose names begin with `family`."""
    arrays = {}
    for name in (name for name in tiny.CASES if tiny.family_of(name) == family):
        with tempfile.TemporaryDirectory() as folder:
            path = tiny.build(Path(folder), name)
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, attn_implementation="eager"
            )
            ids = tiny.ids_of(name)
            logits = logits_of(model, ids)
            new = greedy(model, ids, GREEDY_TOKENS)
        columns = np.linspace(0, logits.shape[1] - 1, tiny.COLUMNS).astype(int)
        arrays[f"{name}/columns"] = logits[:, columns]  # (positions, tiny.COLUMNS)
        arrays[f"{name}/last"] = logits[-1]  # (vocab_size,)
        arrays[f"{name}/largest"] = np.abs(logits).max()
        arrays[f"{name}/greedy"] = np.array(new, np.int32)
        distinct = len(set(new))
        print(f"{name:18} spread {logits.std():.2f}, {distinct} distinct tokens in {len(new)}")
        if distinct < 6 or logits.std() < 1:
            raise SystemExit(f"{name} is degenerate; give the case another seed.")
    np.savez_compressed(out, **arrays)


def load_tokenizer(gguf: Path) -> Any:
    """The tokenizer of the GGUF file, with the pre-tokenizer that SmolLM2 was trained with.

    transformers 5.23 knows nothing of the pre-tokenizer kind `smollm` and leaves digits together.
    SmolLM2's own tokenizer.json splits them first: Digits(individual_digits), then ByteLevel.
    """
    from tokenizers import pre_tokenizers

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return tokenizer


def make_smollm2(gguf: Path, out: Path) -> None:
    tokenizer = load_tokenizer(gguf)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="eager"
    )
    ids = tokenizer.encode(texts.PARAGRAPH, add_special_tokens=False)
    logits = logits_of(model, ids)
    columns = np.linspace(0, logits.shape[1] - 1, SMOLLM2_COLUMNS).astype(np.int32)
    messages = [{"role": "user", "content": texts.QUESTION}]
    chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    chat_ids = tokenizer.encode(chat, add_special_tokens=False)
    new = greedy(model, chat_ids, 64, eos=(tokenizer.eos_token_id,))
    print(f"{len(ids)} ids in the paragraph, {len(chat_ids)} in the chat prompt; greedy reply:")
    print(tokenizer.decode(new))
    arrays = {
        "ids": np.array(ids, np.int32),
        "columns": columns,
        "logits": logits[:, columns],  # (positions, SMOLLM2_COLUMNS)
        "argmax": logits.argmax(axis=1).astype(np.int32),
        "max": logits.max(axis=1),
        "largest": np.abs(logits).max(),
        "chat_ids": np.array(chat_ids, np.int32),
        "greedy": np.array(new, np.int32),
    }
    for i, text in enumerate(texts.AWKWARD):
        arrays[f"text{i}"] = np.array(tokenizer.encode(text, add_special_tokens=False), np.int32)
    np.savez_compressed(out, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["tiny", "smollm2"])
    parser.add_argument("of", nargs="*", help="families of tiny cases, or SmolLM2's GGUF file")
    arguments = parser.parse_args()
    if arguments.what == "tiny":
        for family in arguments.of or dict.fromkeys(map(tiny.family_of, tiny.CASES)):
            make_tiny(family, HERE / "tiny" / f"{family}.npz")
    elif len(arguments.of) != 1:
        parser.error("smollm2 needs the GGUF file")
    else:
        make_smollm2(Path(arguments.of[0]).resolve(), HERE / "smollm2.npz")


if __name__ == "__main__":
    main()
