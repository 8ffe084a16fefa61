"""Small folders whose special tokens stand beside tokenizer.json, as data, and texts to split.

`write(folder, name)` makes one: a byte-level tokenizer.json that knows three added tokens, and the
side files of `CASES[name]`. golden/make_tokenizer_goldens.py writes down what transformers makes of
each. Knows nothing of sparity_edge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

BASE = 256 + 3  # ids of bytes and of the three tokens of `write_tokenizer`
TEXTS = (
    "Hi <|turn|>user\n<|over|> there",
    "a  <|turn|>  b<|over|>c <image> d",
    "plain text, <s>, </s> and <tool>call</tool>",
    "x<|turn|y <|TURN|> <pad>",
)


def token(content: str, **flags: bool) -> dict[str, Any]:
    """A token with all of its flags, as `added_tokens_decoder` has it."""
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    return {"content": content, **plain, "special": True, **flags}


def object_of(content: str, **flags: bool) -> dict[str, Any]:
    """A token as transformers 4 wrote it where a part is named."""
    return {"__type": "AddedToken", **token(content, **flags)}


_TURN, _OVER = token("<|turn|>"), token("<|over|>")
_DECODER = {str(BASE): _TURN, str(BASE + 1): _OVER}
_NAMED = {"bos_token": "<s>", "eos_token": "<|over|>"}
_MARKS = ["<|turn|>", "<|over|>"]

# name -> file without .json -> content
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "nothing": {},
    "decoder": {"tokenizer_config": {**_NAMED, "added_tokens_decoder": _DECODER}},
    "decoder in reverse": {
        "tokenizer_config": {
            **_NAMED,
            "added_tokens_decoder": {str(BASE): _OVER, str(BASE + 1): _TURN},
        }
    },
    "decoder with a gap": {"tokenizer_config": {"added_tokens_decoder": {"300": _TURN}}},
    "decoder makes special": {
        "tokenizer_config": {"added_tokens_decoder": {str(BASE - 1): token("<tool>")}}
    },
    "decoder that strips": {
        "tokenizer_config": {
            "added_tokens_decoder": {
                str(BASE): token("<|turn|>", lstrip=True),
                str(BASE + 1): token("<|over|>", rstrip=True, special=False),
            },
            "eos_token": "</s>",
        }
    },
    "decoder against the map": {
        "tokenizer_config": {"added_tokens_decoder": _DECODER, "eos_token": "<|over|>"},
        "special_tokens_map": {"eos_token": "</s>", "pad_token": "<pad>"},
        "added_tokens": {"<image>": BASE},
    },
    "added_tokens.json": {
        "tokenizer_config": _NAMED,
        "added_tokens": {"<|over|>": BASE + 1, "<|turn|>": BASE, "<image>": BASE + 2},
    },
    "additional list": {"tokenizer_config": {**_NAMED, "additional_special_tokens": _MARKS}},
    "extra list": {
        "tokenizer_config": {"extra_special_tokens": _MARKS, "additional_special_tokens": ["x"]}
    },
    "extra list of objects": {
        "tokenizer_config": {"extra_special_tokens": [object_of("<|turn|>", lstrip=True)]}
    },
    "extra object": {
        "tokenizer_config": {
            "extra_special_tokens": {"image_token": "<image>", "turn_token": "<|turn|>"}
        }
    },
    "tokens of its own": {"tokenizer_config": {"image_token": "<image>", "eos_token": "</s>"}},
    "named in the map": {"special_tokens_map": {"bos_token": "<s>", "eos_token": "</s>"}},
    "map over config": {
        "tokenizer_config": {"eos_token": "</s>", "additional_special_tokens": ["<|turn|>"]},
        "special_tokens_map": {
            "eos_token": {"content": "<|over|>", "lstrip": True, "normalized": True},
            "additional_special_tokens": ["<image>"],
            "bos_token": None,
        },
    },
    "lists of both": {
        "tokenizer_config": {"extra_special_tokens": ["<|turn|>"]},
        "special_tokens_map": {
            "extra_special_tokens": ["<|turn|>", {"content": "<image>", "lstrip": True}]
        },
    },
    "all parts": {
        "tokenizer_config": {
            "cls_token": "<|turn|>",
            "sep_token": "<|over|>",
            "mask_token": object_of("<image>", lstrip=True, special=False),
            "pad_token": "<pad>",
            "unk_token": "</s>",
        }
    },
    "named and already there": {"tokenizer_config": {"pad_token": "<tool>", "eos_token": "plain"}},
}


def write(folder: Path, name: str) -> Path:
    """Make the folder of a case."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer.json")
    for file, content in {"tokenizer_config": {}, **CASES[name]}.items():
        if file == "tokenizer_config":
            write_config(folder, content)
        else:
            (folder / f"{file}.json").write_text(json.dumps(content))
    return folder


def write_config(folder: Path, content: dict[str, Any]) -> None:
    """Write tokenizer_config.json."""
    config = {**content, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_tokenizer(path: Path) -> None:
    """A token for each byte, then <s>, </s> (special) and <tool> (not)."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate(letters)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.add_tokens([tokenizers.AddedToken("<tool>", special=False)])
    bos = ("<s>", backend.token_to_id("<s>"))
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[bos])
    backend.save(str(path))
