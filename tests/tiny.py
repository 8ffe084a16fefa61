"""Tiny Hugging Face checkpoints with random weights, one for every feature of a config.

`build(folder, name)` writes the case `CASES[name]`: config.json, generation_config.json, weights in
safetensors, a byte-level tokenizer and a chat template. Weights come from
`np.random.RandomState(seed)`, whose stream NumPy keeps frozen, so golden/tiny/*.npz stay valid. The
safetensors container is written here by hand, so that tests can also damage it by hand. This
module knows nothing of sparity_edge.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from tiny_cases import ABSENT, BASE, TOKENIZER_SIZE, Case
from tiny_cases import CASES as FIRST_CASES
from tiny_families import CASES as FAMILY_CASES

CASES = FIRST_CASES | FAMILY_CASES
STORAGE = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
FUSED = {
    "granitemoehybrid": {
        **{f"mlp.{each}_proj": "shared_mlp.input_linear" for each in ("gate", "up")},
        "mlp.down_proj": "shared_mlp.output_linear",
    },
    "phi3": {
        **{f"self_attn.{each}_proj": "self_attn.qkv_proj" for each in "qkv"},
        **{f"mlp.{each}_proj": "mlp.gate_up_proj" for each in ("gate", "up")},
    },
}
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What the tokenizer's merges are learned from.
TRAINING_TEXT = (
    "The little model reads one word after another and guesses the next one.",
    "Every weight that it reads has to come from memory, and memory is slow.",
    "When most of the numbers in a vector are small, most of the reading is wasted.",
    "So it asks first which of them matter, and leaves the others where they are.",
    "def add(left, right):\n    return left + right\n",
    "for number in range(10):\n    print(number, number * number)\n",
)
IDS_LENGTH = 40  # longer than every sliding window below
COLUMNS = 24  # of the vocabulary, evenly spread: of these the logits are kept at every position


def config_of(case: Case) -> dict[str, Any]:
    """The content of config.json of a case."""
    return {key: value for key, value in {**BASE, **case.config}.items() if value is not ABSENT}


def ids_of(name: str) -> list[int]:
    """The fixed token ids, `IDS_LENGTH` of them, that the golden logits of a case belong to."""
    random = np.random.RandomState(len(name))
    return [1, *random.randint(len(SPECIAL_TOKENS), TOKENIZER_SIZE, IDS_LENGTH - 1).tolist()]


def family_of(name: str) -> str:
    """What a case is of: its name up to the first underscore."""
    return name.partition("_")[0]


def build(folder: Path, name: str) -> Path:
    """Write the checkpoint of `CASES[name]` into `folder`, which is made if need be."""
    return write(folder, CASES[name])


def write(folder: Path, case: Case) -> Path:
    """Write a checkpoint into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config_of(case))
    if case.generation:
        write_json(folder / "generation_config.json", case.generation)
    write_tokenizer(folder, case)
    tensors = make_tensors(case)
    if case.shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
    else:
        write_shards(folder, tensors, case.shards)
    return folder


def make_tensors(case: Case) -> dict[str, np.ndarray]:
    """Random weights by checkpoint name, in the storage type of the case.

    Linears have a gain of 1.6 and the head one of 2.5, which gives logits a spread of several
    units and a greedy text that does not stay with one token; norms stay F32, as some files do.
    """
    random = np.random.RandomState(1000 + case.seed)
    tensors = {}
    for name, shape in shapes(config_of(case)).items():
        values = random.standard_normal(shape)
        if len(shape) == 2:
            gain = 2.5 if name.startswith(("model.embed", "lm_head")) else 1.6
            values *= gain / math.sqrt(shape[1])
        else:
            values = 1 + 0.2 * values if "norm" in name else 0.3 * values
        storage = "F32" if "norm" in name else case.storage
        tensors[name] = values.astype(np.float32).astype(STORAGE[storage])
    for name in case.extra:
        tied = name == "lm_head.weight"
        tensors[name] = tensors["model.embed_tokens.weight"] if tied else np.ones(8, np.float32)
    return tensors


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint, worked out apart from sparity_edge.config.model_config."""
    hidden = config["hidden_size"]
    inner = config.get("shared_intermediate_size", config["intermediate_size"])
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    q, kv = heads * head_dim, config.get("num_key_value_heads", heads) * head_dim
    qkv_bias = config["model_type"] == "qwen2" or config.get("attention_bias", False)
    o_bias, mlp_bias = config.get("attention_bias", False), config.get("mlp_bias", False)
    linears = {
        "self_attn.q_proj": (q, hidden, qkv_bias),
        "self_attn.k_proj": (kv, hidden, qkv_bias),
        "self_attn.v_proj": (kv, hidden, qkv_bias),
        "self_attn.o_proj": (hidden, q, o_bias),
        "mlp.gate_proj": (inner, hidden, mlp_bias),
        "mlp.up_proj": (inner, hidden, mlp_bias),
        "mlp.down_proj": (hidden, inner, mlp_bias),
    }
    named: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings", False):
        named["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}"
        olmo = config["model_type"].startswith("olmo")
        after = ("post_attention_layernorm", "post_feedforward_layernorm")
        for norm in after if olmo else ("input_layernorm", "post_attention_layernorm"):
            named[f"{block}.{norm}.weight"] = (hidden,)
        if olmo:
            named |= {f"{block}.self_attn.q_norm.weight": (q,)}
            named |= {f"{block}.self_attn.k_norm.weight": (kv,)}
        if config["model_type"] == "qwen3":
            named |= {f"{block}.self_attn.{each}_norm.weight": (head_dim,) for each in "qk"}
        for linear, (outputs, inputs, bias) in linears.items():
            named[f"{block}.{linear}.weight"] = (outputs, inputs)
            if bias:
                named[f"{block}.{linear}.bias"] = (outputs,)
    return fused(named, config["model_type"])


def fused(named: dict[str, tuple[int, ...]], model_type: str) -> dict[str, tuple[int, ...]]:
    """Matrices that a family stores as one, or under another name, in the place of the first."""
    result: dict[str, tuple[int, ...]] = {}
    for name, shape in named.items():
        linear = name.removesuffix(".weight").split(".", 3)[-1]
        module = FUSED.get(model_type, {}).get(linear, linear)
        whole = name.replace(linear, module)
        rows = result[whole][0] if whole in result else 0
        result[whole] = (rows + shape[0], *shape[1:])
    return result


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file: length of the header, header in JSON, data end to end."""
    names = {np.dtype(dtype): name for name, dtype in STORAGE.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        span = [offset, offset + tensor.nbytes]
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": span,
        }
        offset = span[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_shards(folder: Path, tensors: Mapping[str, np.ndarray], count: int) -> None:
    """Deal the tensors out to `count` files and write their index."""
    names = list(tensors)
    files = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    weight_map = {name: files[i % count] for i, name in enumerate(names)}
    for file in files:
        own = {name: tensors[name] for name in names if weight_map[name] == file}
        write_safetensors(folder / file, own)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)


def write_tokenizer(folder: Path, case: Case) -> None:
    """Write tokenizer.json (byte-level BPE), tokenizer_config.json and the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    if case.adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": 256,
        "clean_up_tokenization_spaces": False,
    }
    if case.template == "config":
        settings["chat_template"] = CHAT_TEMPLATE
    if case.template == "file":
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8", newline="")
    write_json(folder / "tokenizer_config.json", settings)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
