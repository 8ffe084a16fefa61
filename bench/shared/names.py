"""Names as they stand in results files: sides of a comparison and parts of a token."""

from __future__ import annotations

OURS, PEER, FORK, DENSE = "ours", "llama.cpp", "ik_llama.cpp", "dense"
NORMS, ATTENTION, FFN, HEAD, SELECTION, REST, TOKEN = (
    "embedding, norms", "attention", "FFN", "LM head", "selection", "rest", "token"
)  # fmt: skip
PARTS = (NORMS, ATTENTION, FFN, HEAD, SELECTION)
