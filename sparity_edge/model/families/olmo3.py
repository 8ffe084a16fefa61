"""OLMo 3 (Olmo Team, 2025): an OLMo 2 with windows in three layers of four, whose rope is plain."""

from __future__ import annotations

from dataclasses import replace

from sparity_edge.config.family import GgufNames
from sparity_edge.config.layer_steps import windows_but_every_fourth
from sparity_edge.model.families import olmo2

# llama.cpp tells the two apart by the window.
_WINDOW = "attention.sliding_window"
FAMILY = replace(
    olmo2.FAMILY,
    model_type="olmo3",
    architectures=("Olmo3ForCausalLM",),
    defaults={**olmo2.FAMILY.defaults, "rope_theta": 500000.0, "sliding_window": 4096},
    windows=windows_but_every_fourth,
    rope_by_layer_type=True,
    gguf=GgufNames(
        "olmo2",
        marked_by=_WINDOW,
        keys={"sliding_window": _WINDOW},
        windows=f"{_WINDOW}_pattern",
        tensors=olmo2.GGUF_NORMS,
    ),
)
