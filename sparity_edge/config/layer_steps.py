"""Which layers have an optional step, read from config.json: what a `Family` names as a hook.

Each function takes the content of config.json (defaults filled in) and the number of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sparity_edge.config.values import (
    MAX_CONTEXT,
    MAX_LAYERS,
    read_boolean,
    read_integer,
    show,
)
from sparity_edge.errors import ConfigError


def no_windows(config: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:  # noqa: ARG001
    """Every layer attends to all positions, whatever config.json says of windows."""
    return (None,) * layers


def sliding_windows(
    config: Mapping[str, Any], layers: int, first_key: str | None = None
) -> tuple[int | None, ...]:
    """`sliding_window` in the layers that `layer_types` names, or in all of them.

    Args:
        config: the content of config.json.
        layers: how many there are.
        first_key: the key that names the first windowed layer, where there is no `layer_types`.

    Returns:
        By layer: how many positions a query sees, itself included; None: all of them.

    Raises:
        ConfigError: a value has the wrong type or is out of bounds.
    """
    if config.get("sliding_window") is None:
        return no_windows(config, layers)
    window = read_integer(config, "sliding_window", MAX_CONTEXT)
    kinds = config.get("layer_types")
    if kinds is not None:
        _check_layer_types(kinds, layers)
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)
    first = read_integer(config, first_key, MAX_LAYERS, least=0) if first_key else 0
    return tuple(window if layer >= first else None for layer in range(layers))


def windows_in_use(config: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:
    """`sliding_windows` from `max_window_layers` on, where `use_sliding_window` is true."""
    windowed = config.get("sliding_window") is not None
    if not windowed or not read_boolean(config, "use_sliding_window", default=False):
        return no_windows(config, layers)
    return sliding_windows(config, layers, "max_window_layers")


def windows_but_every_fourth(config: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:
    """`sliding_window` in the layers that `layer_types` names, or in three of four (OLMo 3)."""
    windows = sliding_windows(config, layers)
    if config.get("layer_types") is not None:
        return windows
    return tuple(None if layer % 4 == 3 else window for layer, window in enumerate(windows))


def rope_everywhere(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:  # noqa: ARG001
    """No layer is without rotary embedding."""
    return ()


def rope_in_layers(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """Layers without rotary embedding: those at which `no_rope_layers` has a 0 (SmolLM3).

    Where there is no such list, one of `no_rope_layer_interval` layers is without, or one of four.

    Raises:
        ConfigError: the list or the interval is none.
    """
    rotated = config.get("no_rope_layers")
    if rotated is None:
        interval = read_integer(config, "no_rope_layer_interval", MAX_LAYERS, default=4)
        return tuple(range(interval - 1, layers, interval))
    listed = isinstance(rotated, list) and len(rotated) >= layers
    if not listed or any(each not in (0, 1) for each in rotated):
        raise ConfigError(
            f"config.json: no_rope_layers={show(rotated)} does not hold 0 or 1 for each of "
            f"{layers} layers."
        )
    return tuple(layer for layer in range(layers) if not rotated[layer])


def windows_without_rope(config: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:
    """Where `use_sliding_window` is true, windows in layers without rotary embedding (SmolLM3)."""
    if config.get("layer_types") is not None:
        return sliding_windows(config, layers)
    if not read_boolean(config, "use_sliding_window", default=False):
        return no_windows(config, layers)
    without = rope_in_layers(config, layers)
    windows = enumerate(sliding_windows(config, layers))
    return tuple(window if layer in without else None for layer, window in windows)


def rope_where(key: str) -> Callable[[Mapping[str, Any], int], tuple[int, ...]]:
    """All layers have rotary embedding, or none where `key` is false; gives the layers without."""

    def layers_without(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
        return () if read_boolean(config, key, default=True) else tuple(range(layers))

    return layers_without


def _check_layer_types(kinds: Any, layers: int) -> None:
    known = ("full_attention", "sliding_attention")
    if not isinstance(kinds, list) or len(kinds) != layers or any(k not in known for k in kinds):
        raise ConfigError(
            f"config.json: layer_types={show(kinds)} does not name full_attention or "
            f"sliding_attention for each of {layers} layers."
        )
