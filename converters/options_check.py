"""Whether a packed folder has the numbers and layout of the options, and how to make one that has.

Asks the same policy that packs: a folder matches when packing its own numbers again would change
nothing.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

from converters.pack import BUNDLED, choose_layout, matrices
from converters.pack_options import PackOptions
from sparity_edge.errors import OptionError
from sparity_edge.model.opening import open_folder
from sparity_edge.packed.bundle import bundle_of
from sparity_edge.packed.folder import PackedFolder


def refuse_mismatch(path: Path, options: PackOptions) -> None:
    """Refuse a packed folder that does not hold what was asked for explicitly.

    The default layout counts as not asked for: the decoder runs any.

    Raises:
        OptionError: another dtype, group or layout was asked for.
        FormatError, ConfigError: the folder is damaged.
    """
    if options.dtype is None and options.group is None and options.layout in (None, "dense"):
        return
    folder = open_folder(path)
    specs = {name: stored.spec for name, stored in folder.tensors.items()}
    for name, spec in matrices(specs):
        native = (spec.dtype, spec.group, spec.minimum)
        wanted = choose_layout(name, spec.shape, native, options)
        together = options.layout in BUNDLED and bundle_of(name) is not None
        placed = (wanted.orientation, together) == (spec.orientation, name not in specs)
        if options.layout not in (None, "dense") and not placed:
            raise OptionError(
                f"{path} is not stored in layout {options.layout}; "
                f"{_remedy(str(path), options)} stores it so."
            )
        if (wanted.dtype, wanted.group, wanted.minimum) != native:
            numbers = f"{spec.dtype} in groups of {spec.group}" if spec.group else spec.dtype
            raise OptionError(
                f"{path} holds {name} in {numbers}, not as asked for; "
                f"{_remedy(_origin(folder), options)} makes it so."
            )


def _origin(folder: PackedFolder) -> str:
    """What the folder was made of: better numbers to start from than those it holds."""
    origin = folder.manifest.get("source")
    if isinstance(origin, str) and 0 < len(origin) < 500 and origin.isprintable():
        return origin
    return str(folder.path)


def _remedy(source: str, options: PackOptions) -> str:
    words = ["sparity-edge", "convert", source, "OUT"]
    for key, value in asdict(options).items():
        if value is not None and value != "dense":
            words += [f"--{key}", str(value)]
    return shlex.join(words)
