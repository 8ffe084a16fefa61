"""PackOptions: number format and layout of a packed folder, as the user asks for them, checked.

Apart from `pack`, since a start whose model is packed already needs the options and no packer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparity_edge.choices import DTYPES, LAYOUTS
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import OptionError
from sparity_edge.packed.layout import GROUPS


@dataclass(frozen=True)
class PackOptions:
    """What a packed folder is to be.

    Raises:
        OptionError: a value is unknown, or two contradict each other.
    """

    dtype: str | None = None  # None: the source's own integers, everything else int8
    group: int | None = None  # input channels that share a scale; None: the source's own, or 32
    # Which matrices become input-major, and whether up and down are bundled; None: what serves the
    # model when it is read whole (`for_model`).
    layout: str | None = None

    def __post_init__(self) -> None:
        _one_of("dtype", self.dtype, (None, *DTYPES))
        _one_of("group", self.group, (None, *GROUPS))
        _one_of("layout", self.layout, (None, *LAYOUTS))
        if self.dtype in ("f32", "bf16") and self.group is not None:
            raise OptionError(f"group {self.group} needs dtype int8 or int4, not {self.dtype}.")

    def for_model(self, config: ModelConfig) -> PackOptions:
        """These options with a layout: `dense`, or `ffn` where gates of zero can be skipped."""
        if self.layout is not None:
            return self
        skips = config.activation.zeroes and config.bundles
        return replace(self, layout="ffn" if skips else "dense")


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        names = ", ".join(str(item) for item in allowed if item is not None)
        raise OptionError(f"{name}={value!r} is not supported; use one of {names}.")
