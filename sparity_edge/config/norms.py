"""Norms: which RMSNorms a layer has, on its residual stream and on its q and k.

A Llama norms what each half of a layer reads (Zhang and Sennrich, 2019). OLMo 2 norms what each
half gives instead, before it is added, and Gemma does both.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

# What one norm of q and k is over: the numbers of each head, or all of them together.
QkNorm = Literal["heads", "all"]


class Norms(NamedTuple):
    """Names of the norms about the two halves of a layer in a checkpoint; None: there is none."""

    before_attention: str | None = "input_layernorm"
    after_attention: str | None = None
    before_ffn: str | None = "post_attention_layernorm"
    after_ffn: str | None = None


BEFORE = Norms()
AFTER = Norms(None, "post_attention_layernorm", None, "post_feedforward_layernorm")
