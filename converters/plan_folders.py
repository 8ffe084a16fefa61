"""Which packed folder carries which plan: what a plan skips must be stored so that it can be."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from sparity_edge.errors import OptionError
from sparity_edge.packed.folder import PackedFolder


def find_folders(
    model: str,
    named: PackedFolder | None,
    needs: Mapping[str, Sequence[str]],
    layout: str | None,
    pack: Callable[[str], PackedFolder],
    *,
    explicit: bool,
) -> dict[str, PackedFolder]:
    """Plan name -> the packed folder that will carry it.

    Args:
        model: what the user calls it.
        named: the packed folder that this is, which then carries what it can; None: it can be
            packed.
        needs: plan name -> the layouts that serve it, the best one first.
        layout: the only one to be used; None: as few as will do.
        pack: gives the packed folder of the model in a layout.
        explicit: whether a plan that no folder can carry is refused, or left out.

    Raises:
        OptionError: no folder can carry a plan.
    """
    packs: dict[str, PackedFolder] = {}  # by layout
    if named is not None:
        layout = layout_of(named)
        packs[layout] = named
    found: dict[str, PackedFolder] = {}
    for name, layouts in needs.items():
        if layout is None or layout in layouts:
            best = layout or next((each for each in packs if each in layouts), layouts[0])
            if best not in packs:
                packs[best] = pack(best)
            found[name] = packs[best]
        elif explicit:
            raise OptionError(
                f"Plan {name} needs layout {layouts[0]} and {_subject(model, named)} {layout}; "
                f"{_remedy(model, layouts[0], named)}."
            )
    if not found:
        best = next(iter(needs.values()), ("ffn",))[0]
        raise OptionError(
            f"{_subject(model, named)} {layout}, which no sparsity plan asked for can use; "
            f"{_remedy(model, best, named)}."
        )
    return found


def layout_of(folder: PackedFolder) -> str:
    """The layout that a packed folder was made with."""
    options = folder.manifest.get("options")
    layout = options.get("layout") if isinstance(options, dict) else None
    return layout if isinstance(layout, str) else "dense"


def _subject(model: str, named: PackedFolder | None) -> str:
    return f"{model} is stored in layout" if named else "--layout asks for"


def _remedy(model: str, layout: str, named: PackedFolder | None) -> str:
    if named is None:
        return f"use --layout {layout}"
    command = shlex.join(["sparity-edge", "convert", model, "OUT", "--layout", layout])
    return f"make one with {command}"
