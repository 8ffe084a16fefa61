"""Activation: what stands between the gate of an FFN and its product with up.

SiLU is never exactly zero. ReLU is, for every gate that is not positive, and FATReLU (Song et al.,
ProSparse, arXiv 2402.13516) for every gate up to a threshold; dReLU (TurboSparse, arXiv 2406.05955)
is ReLU of the gate times ReLU of up. What is zero need not be read, and nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparity_edge.config.values import show
from sparity_edge.errors import ConfigError

NAMES = ("silu", "relu", "fatrelu")
LARGEST_THRESHOLD = 1e6  # of FATReLU; those in use are 0.01 and 0.03


@dataclass(frozen=True)
class Activation:
    """The activation of a model's FFN."""

    name: str  # one of NAMES
    threshold: float = 0.0  # of relu (0) and fatrelu: a gate up to it becomes zero
    up: bool = False  # whether up becomes zero in the same way (dReLU)

    @property
    def zeroes(self) -> bool:
        """Whether gates become exactly zero, so that their neurons need not be read."""
        return self.name != "silu"

    def __str__(self) -> str:
        """Its name as papers have it."""
        if self.up:
            return "dReLU"
        names = {"silu": "SiLU", "relu": "ReLU", "fatrelu": f"FATReLU({self.threshold:g})"}
        return names[self.name]


SILU = Activation("silu")


def read_activation(config: Mapping[str, Any], up: bool = False) -> Activation:
    """`hidden_act` and, of fatrelu, `hidden_act_param`.

    Args:
        config: the content of config.json, defaults filled in.
        up: whether the family has up go through the activation, too.

    Raises:
        ConfigError: it is an activation that is not supported, or its parameter is none.
    """
    name = config.get("hidden_act", "silu")
    name = {"swish": "silu", "fat_relu": "fatrelu"}.get(name, name) if isinstance(name, str) else ""
    if name not in NAMES or (up and name != "relu"):
        known = "relu is, here" if up else f"use one of {', '.join(NAMES)}"
        raise ConfigError(
            f"config.json: hidden_act={show(config.get('hidden_act', 'silu'))} is not supported; "
            f"{known}."
        )
    return Activation(name, _threshold(config) if name == "fatrelu" else 0.0, up)


def _threshold(config: Mapping[str, Any]) -> float:
    value = config.get("hidden_act_param")
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 <= number <= LARGEST_THRESHOLD:
        raise ConfigError(
            f"config.json: hidden_act_param={show(value)} is no threshold of fatrelu, a number "
            f"from 0 to {LARGEST_THRESHOLD:g}."
        )
    return float(number)
