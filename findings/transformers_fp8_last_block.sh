#!/usr/bin/env bash
# transformers 5.24.0: FP8 checkpoints whose last block is cut are dequantised with other blocks.
#
# config.json says how many rows and columns share a scale (weight_block_size, 128 by 128 nearly
# always), and a matrix that is no multiple of it ends with a block that is cut. Fp8Dequantize does
# not look at that size: it divides the matrix by the number of its scales. 192 columns have two
# scales, so it takes blocks of 96: the columns from 96 to 127 get the scale of the next block, and
# nothing is said. Where the division leaves a rest (576 rows, five scales) it raises ValueError.
#
# Seen: 32 of 192 columns of gate_proj are wrong, those from 96 to 127.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.14.1 transformers==5.24.0 accelerate==1.15.0
"$place/venv/bin/python" - "$place/model" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, FineGrainedFP8Config, LlamaConfig, LlamaForCausalLM

BLOCK, NAME = 128, "model.layers.0.mlp.gate_proj.weight"  # of 256 rows and 192 columns
config = LlamaConfig(
    architectures=["LlamaForCausalLM"], hidden_size=192, intermediate_size=256, vocab_size=64,
    num_hidden_layers=1, num_attention_heads=3, num_key_value_heads=3,
)
tensors = {}
for name, weight in LlamaForCausalLM(config).state_dict().items():
    tensors[name] = weight.clone()
    if "_proj" in name:
        blocks = [-(-side // BLOCK) for side in weight.shape]
        tensors[name] = (weight * 1000).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = torch.rand(blocks) + 0.5
folder = Path(sys.argv[1])
folder.mkdir()
save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
settings = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
(folder / "config.json").write_text(
    json.dumps({**config.to_dict(), "quantization_config": settings})
)
loaded = AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, quantization_config=FineGrainedFP8Config(dequantize=True)
)
found = loaded.state_dict()[NAME]
scales = tensors[f"{NAME}_scale_inv"].repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
right = tensors[NAME].float() * scales[: found.shape[0], : found.shape[1]]
wrong = (found != right).any(0).nonzero().flatten().tolist()
print("columns that are wrong:", wrong)
assert wrong == list(range(96, 128)), "no longer so"
PYTHON
