"""The name of a model with LoRA adapters: its own name, then each adapter, as it is typed.

"MODEL --lora DIR:SCALE" goes wherever the name of a model goes, and means another model. Knows
nothing of what an adapter holds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sparity_edge.errors import OptionError

_OPTION = " --lora "
MOST = 16  # adapters of one model


class Adapter(NamedTuple):
    """A folder as peft writes it, and the factor on what it adds."""

    folder: Path
    scale: float


def with_adapters(model: str, adapters: str | os.PathLike[str] | Sequence[str]) -> str:
    """The name of a model with LoRA adapters.

    Args:
        model: the model's own name, or one with adapters.
        adapters: each "DIR" or "DIR:SCALE"; a single one may stand by itself.

    Raises:
        OptionError: that names no adapter.
    """
    listed = [adapters] if isinstance(adapters, str | os.PathLike) else list(adapters)
    names = [os.fspath(each) for each in listed]
    for name in names:
        if not isinstance(name, str) or not name.strip() or _OPTION in f" {name} ":
            raise OptionError(f"lora={name!r} names no folder; give DIR or DIR:SCALE.")
    name = "".join([model, *(f"{_OPTION}{each}" for each in names)])
    adapters_of(name)
    return name


def own_name(model: str) -> str:
    """The name of a model without its adapters.

    Args:
        model: a name, as `with_adapters` gives it or without adapters.
    """
    return model.partition(_OPTION)[0]


def adapters_of(model: str) -> list[Adapter]:
    """The adapters that a model's name ends with; none: it is a model as it comes.

    Args:
        model: a name, as `with_adapters` gives it or without adapters.

    Raises:
        OptionError: there are too many, or a scale is no number.
    """
    found = [_adapter(each) for each in model.split(_OPTION)[1:]]
    if len(found) > MOST:
        raise OptionError(f"{len(found)} LoRA adapters are more than the {MOST} of one model.")
    return found


def _adapter(name: str) -> Adapter:
    folder, colon, scale = name.rpartition(":")
    if not colon or Path(name).expanduser().is_dir():
        return Adapter(Path(name).expanduser(), 1.0)
    try:
        number = float(scale)
    except ValueError:
        return Adapter(Path(name).expanduser(), 1.0)
    if not math.isfinite(number):
        raise OptionError(f"--lora {name}: the scale {scale} is no number that can be used.")
    return Adapter(Path(folder).expanduser(), number)
