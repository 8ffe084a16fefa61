"""Packing quantised checkpoints: time against a plain read and write of the file, and memory.

Writes folders of a few layers in the shape of Llama-3-8B with random numbers, packs each in a
process of its own, and extrapolates from what a further layer and further rows of the vocabulary
cost to all layers and all rows. The yardstick reads and writes the bytes of the file at 500 MB/s.
The embedding and the head of AWQ and GPTQ are bfloat16, as in most such files; MLX quantises them.

    python bench/forms/packing.py
    python bench/forms/packing.py --form awq --rounds 1
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.common import parser, save, say
from shared.synthetic import SHAPES

SHAPE = SHAPES["Llama-3-8B"]
YARDSTICK = 500e6  # bytes a second, once read and once written
FORMS = ("awq", "gptq", "gptq-zeros", "mlx")
# (layers, rows of the vocabulary): a folder, one more layer, more rows.
BASE, MORE_LAYERS, MORE_ROWS = (1, 2048), (2, 2048), (1, 18432)
GROUP = 128  # of MLX 64
_NAMES = {
    "q": ("self_attn.q_proj",),
    "k, v": ("self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate, up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "awq": {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": GROUP}},
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": GROUP}},
    "mlx": {"quantization": {"bits": 4, "group_size": 64}},
}
_SETTINGS["gptq-zeros"] = _SETTINGS["gptq"]


def words(*shape: int) -> Any:
    """Random 32-bit words: drawn once, repeated."""
    drawn = np.random.default_rng(0).integers(0, 256, 4 << 20, np.uint8).view(np.int32)
    return np.resize(drawn, shape)


def parts_of(form: str, outputs: int, inputs: int) -> dict[str, tuple[str, Any]]:
    """The tensors of one linear by the last part of their names, each with its type's name."""
    if form == "mlx":
        groups = outputs, inputs // 64
        scales = np.full(groups, 0x3C00, np.uint16)  # bfloat16 of about 0.008
        return {
            "weight": ("U32", words(outputs, inputs // 8)),
            "scales": ("BF16", scales),
            "biases": ("BF16", scales | 0x8000),
        }
    groups = inputs // GROUP
    zeros = words(groups, outputs // 8)
    if form == "gptq":
        zeros = np.full_like(zeros, 0x77777777)  # all zero points are 8
    rest = {
        "qzeros": ("I32", zeros),
        "scales": ("F16", np.full((groups, outputs), 0.008, np.float16)),
    }
    if form == "awq":
        return {"qweight": ("I32", words(inputs, outputs // 8)), **rest}
    g_idx = np.arange(inputs, dtype=np.int32) // GROUP
    return {"qweight": ("I32", words(inputs // 8, outputs)), "g_idx": ("I32", g_idx), **rest}


def tensors_of(form: str, layers: int, rows: int) -> Iterator[tuple[str, str, Any]]:
    """Name, type and content of every tensor."""
    vocabulary = np.full((rows, SHAPE.hidden), 0x3C00, np.uint16)
    for name in ("model.embed_tokens", "lm_head"):
        if form == "mlx":
            yield from (
                (f"{name}.{part}", *value)
                for part, value in parts_of(form, rows, SHAPE.hidden).items()
            )
        else:
            yield f"{name}.weight", "BF16", vocabulary
    norm = np.ones(SHAPE.hidden, np.float32)
    yield "model.norm.weight", "F32", norm
    for layer in range(layers):
        block = f"model.layers.{layer}"
        yield f"{block}.input_layernorm.weight", "F32", norm
        yield f"{block}.post_attention_layernorm.weight", "F32", norm
        for kind, names in _NAMES.items():
            parts = parts_of(form, *SHAPE.linears[kind])
            for name in names:
                for part, value in parts.items():
                    yield f"{block}.{name}.{part}", *value


def write_folder(folder: Path, form: str, layers: int, rows: int) -> int:
    """Write a checkpoint; the bytes of its weights."""
    folder.mkdir(parents=True)
    header: dict[str, Any] = {}
    offset = 0
    for name, dtype, content in tensors_of(form, layers, rows):
        header[name] = {
            "dtype": dtype,
            "shape": list(content.shape),
            "data_offsets": [offset, offset + content.nbytes],
        }
        offset += content.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, _, content in tensors_of(form, layers, rows):
            content.tofile(file)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": SHAPE.hidden,
        "intermediate_size": SHAPE.inner,
        "num_hidden_layers": layers,
        "num_attention_heads": SHAPE.heads,
        "num_key_value_heads": SHAPE.kv_heads,
        "vocab_size": rows,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 8192,
        **_SETTINGS[form],
    }
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder)
    return offset


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {letter: i for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def pack(folder: Path, out: Path) -> None:
    """In a process of its own: pack a folder and print seconds and the most bytes in memory."""
    import resource
    import time

    from converters.pack import convert
    from converters.pack_options import PackOptions
    from converters.sources import open_source

    began = time.perf_counter()
    with open_source(str(folder)) as source:
        convert(source, out, PackOptions())
    seconds = time.perf_counter() - began
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak": peak}))


def measure(form: str, rounds: int, place: Path) -> dict[str, Any]:
    """Time and memory of packing the whole shape, extrapolated from three small folders."""
    sizes = (BASE, MORE_LAYERS, MORE_ROWS)
    nbytes = [write_folder(place / f"{form}-{i}", form, *size) for i, size in enumerate(sizes)]
    runs: list[list[Mapping[str, float]]] = [[], [], []]
    for _ in range(rounds):
        for i, found in enumerate(runs):  # interleaved
            out = place / "packed"
            child = [sys.executable, __file__, "--pack", str(place / f"{form}-{i}"), str(out)]
            printed = subprocess.run(child, check=True, capture_output=True, text=True).stdout
            found.append(json.loads(printed))
            subprocess.run(["rm", "-r", str(out)], check=True)
    seconds = [statistics.median(run["seconds"] for run in found) for found in runs]
    whole, file_bytes = _extrapolated(seconds), _extrapolated(nbytes)
    yardstick = 2 * file_bytes / YARDSTICK
    return {
        "seconds of small folders": seconds,
        "bytes of small folders": nbytes,
        "seconds": whole,
        "bytes": file_bytes,
        "share of yardstick": whole / yardstick,
        "peak": max(run["peak"] for found in runs for run in found),
    }


def _extrapolated(values: list[Any]) -> float:
    """What all layers and all rows come to."""
    base, layers, rows = map(float, values)
    of_layers = (layers - base) / (MORE_LAYERS[0] - BASE[0]) * (SHAPE.layers - BASE[0])
    return base + of_layers + (rows - base) / (MORE_ROWS[1] - BASE[1]) * (SHAPE.vocab - BASE[1])


def main() -> int:
    """Measure every form that was asked for."""
    from sparity_edge.measure.machine import machine

    if len(sys.argv) == 4 and sys.argv[1] == "--pack":
        pack(Path(sys.argv[2]), Path(sys.argv[3]))
        return 0
    options_of = parser(__doc__, "packing")
    options_of.add_argument("--form", choices=FORMS, action="append", help="default: all")
    options = options_of.parse_args()
    report: dict[str, Any] = {"machine": machine(os.cpu_count() or 1), "forms": {}}
    with tempfile.TemporaryDirectory() as place:
        for form in options.form or FORMS:
            row = measure(form, 1 if options.quick else options.rounds, Path(place))
            report["forms"][form] = row
            say(
                f"{form}: {row['bytes'] / 1e9:.2f} GB in {row['seconds']:.1f} s, "
                f"{row['share of yardstick']:.2f} of a read and write at 500 MB/s; "
                f"peak {row['peak'] / 1e6:.0f} MB in the small folders"
            )
    save(options.out, report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
