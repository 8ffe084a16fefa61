"""Make lora.npz: what peft computes with the adapters of lora_adapters.py.

Run by hand, never by the tests; needs an environment of its own:

    pip install torch==2.13.0 transformers peft gguf ml_dtypes
    python tests/golden/make_lora_goldens.py

Goldens in the repository: peft 0.21.2, transformers 5.24.0. In float32 with eager attention, over
the whole text; kept are `tiny.COLUMNS` columns of the logits. Weights of the GGUF file are what
transformers reads out of it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "adapters")]

import lora_adapters as adapters  # noqa: E402
import tiny  # noqa: E402

EXACT = {"dtype": torch.float32, "attn_implementation": "eager"}


def logits_of(kind: str, name: str, work: Path) -> np.ndarray:
    """Logits (positions, vocab_size) of a model with the adapters `TOGETHER[name]`."""
    path = adapters.model(work / "model", kind)
    place: dict[str, Any] = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if place else path
    model = AutoModelForCausalLM.from_pretrained(folder, **place, **EXACT)
    chosen = adapters.TOGETHER[name]
    folders = {each: adapters.build(work / each, each, kind) for each, _ in chosen}
    first, *others = folders
    adapted = PeftModel.from_pretrained(model, folders[first], adapter_name=first)
    for each in others:
        adapted.load_adapter(folders[each], adapter_name=each)
    adapted.base_model.set_adapter(list(folders))
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            for each, scale in chosen:
                if each in module.scaling:
                    module.set_scale(each, scale)
    with torch.no_grad():
        ids = torch.tensor([tiny.ids_of(adapters.CHECKPOINT)])
        return adapted(ids, use_cache=False).logits[0].float().numpy()


def main() -> None:
    """Write the goldens beside this script."""
    arrays = {}
    for kind, name in adapters.pairs():
        with tempfile.TemporaryDirectory() as work:
            arrays[f"{kind}/{name}"] = logits_of(kind, name, Path(work))
    for name, logits in arrays.items():
        print(name, logits.shape, float(logits.std()))
    columns = np.linspace(0, logits.shape[1] - 1, tiny.COLUMNS).astype(int)
    np.savez_compressed(HERE / "lora.npz", **{k: each[:, columns] for k, each in arrays.items()})


if __name__ == "__main__":
    main()
