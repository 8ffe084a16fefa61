"""Sampling parameters that a model's author suggests, in its generation_config.json.

Only what says how tokens are drawn is taken, as vLLM does it; `do_sample` and bounds of length are
defaults of transformers' own calls. The file comes from strangers: a value that is out of range is
passed over, for the model runs as well without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sparity_edge.errors import OptionError
from sparity_edge.generation.params import SamplingParams

SUGGESTED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
FILE = "generation_config.json"


def suggested_params(generation_config: Mapping[str, Any]) -> SamplingParams:
    """The defaults, with what a model suggests in their place.

    Args:
        generation_config: the content of generation_config.json.
    """
    params = SamplingParams()
    for name in SUGGESTED:
        value = generation_config.get(name)
        if isinstance(value, float) and value.is_integer() and name == "top_k":
            value = int(value)
        if value is not None:
            try:
                params = dataclasses.replace(params, **{name: value})
            except OptionError:
                continue
    return params


def suggestions(params: SamplingParams) -> list[str]:
    """Names of the parameters in which a model's defaults differ from ours."""
    ours = SamplingParams()
    return [name for name in SUGGESTED if getattr(params, name) != getattr(ours, name)]
