"""What `calibrate` and `plan` do, given the understood command line.

Calibration itself is in converters; plans are read and written by `plan_file`. A model that is no
packed folder stands for the packs of it that are in the pack cache.
"""

from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

from sparity_edge.choices import DEFAULT_PLAN
from sparity_edge.cli.commands.loading import progress_bars, side_screen
from sparity_edge.cli.commands.plan_tables import gain_facts, show_plan
from sparity_edge.errors import OptionError
from sparity_edge.model.opening import open_folder
from sparity_edge.packed.manifest import is_packed
from sparity_edge.plans.plan import PlanFamily
from sparity_edge.plans.plan_file import add_plan, can_carry, plan_names, read_plan, remove_plan
from sparity_edge.spelling import did_you_mean
from sparity_edge.terminal.json_output import print_json
from sparity_edge.terminal.screen import neutral


def calibrate(arguments: Namespace) -> None:
    """`sparity-edge calibrate`: one line for each plan that was stored."""
    from converters.calibrate import calibrate as run

    screen = side_screen()
    with progress_bars(arguments, screen) as bars:
        stored = run(
            arguments.model,
            texts=arguments.text,
            tokens=arguments.tokens,
            methods=arguments.methods,
            layout=arguments.layout,
            dtype=arguments.dtype,
            threads=arguments.threads,
            workers=arguments.workers,
            cluster=arguments.cluster,
            offline=arguments.offline,
            progress=bars,
            notify=bars.notify,
        )
    for each in stored:
        print(neutral(f"{_line(each.family)}  {each.folder}"))


def plan_list(arguments: Namespace) -> None:
    """`sparity-edge plan list`: one line for each plan."""
    found = [(folder, name) for folder in _folders(arguments.model) for name in plan_names(folder)]
    families = [(folder, read_plan(open_folder(folder), name)) for folder, name in found]
    if arguments.json:
        facts = [{"folder": str(folder), **_summary(family)} for folder, family in families]
        print_json(facts)
        return
    for folder, family in families:
        print(neutral(f"{_line(family)}  {folder}"))
    if always := _always_skipped(arguments.model):
        print(neutral(f"With and without a plan {always} are skipped."))
    if not families:
        print(neutral(f"No plans; make some with sparity-edge calibrate {arguments.model}."))


def plan_show(arguments: Namespace) -> None:
    """`sparity-edge plan show`: its origin, and what it reads at several sparsities.

    Without a name: the plan that is followed where none is named.
    """
    name = arguments.name or _default(arguments.model)
    folder, family = _find(arguments.model, name)
    gains = gain_facts(folder, family)
    always = _always_skipped(arguments.model)
    if arguments.json:
        facts = {**_summary(family), "notes": dict(family.notes), "always_skipped": always}
        facts["gains_here"] = gains
        facts["levels"] = [round(float(level), 4) for level in family.levels]
        facts["active"] = [round(float(active), 4) for active in family.active]
        print_json(facts)
        return
    show_plan(family, gains)
    if always:
        print(neutral(f"Whatever the plan says, {always} are skipped."))


def plan_add(arguments: Namespace) -> None:
    """`sparity-edge plan add`: copy a plan into every pack of the same model that can carry it.

    Raises:
        OptionError: FILE is no plan of a packed folder, or no pack stores what it skips so that it
            can be skipped.
    """
    file = Path(arguments.file)
    name = file.name.removeprefix("plan-").removesuffix(".safetensors")
    if file.name != f"plan-{name}.safetensors" or not is_packed(file.parent):
        raise OptionError(f"{file} is not a plan-NAME.safetensors in a packed folder; name one.")
    family = read_plan(open_folder(file.parent), name)
    folders = [open_folder(each) for each in _folders(arguments.model)]
    able = [each for each in folders if can_carry(each, family)]
    if not able:
        raise OptionError(
            f"Plan {name} needs layout {family.layout} and {arguments.model} is packed otherwise; "
            + _packing_for(arguments.model, family.layout)
        )
    for folder in able:
        add_plan(folder, family)
        print(neutral(f"{_line(family)}  {folder.path}"))


def plan_remove(arguments: Namespace) -> None:
    """`sparity-edge plan remove`: take a plan away from every pack that carries it."""
    carriers = [each for each in _folders(arguments.model) if arguments.name in plan_names(each)]
    if not carriers:
        raise _unknown(arguments.model, arguments.name)
    for folder in carriers:
        remove_plan(folder, arguments.name)
        print(neutral(f"{arguments.name} removed from {folder}"))


def _folders(model: str) -> list[Path]:
    """The packed folder that is named, or the cached packs of a model.

    Raises:
        OptionError: there are none.
    """
    from converters.pack_cache import entries
    from converters.store import packed_path

    if (own := packed_path(model)) is not None:
        return [own]
    folders = [entry.path for entry in entries() if entry.name == model]
    if not folders:
        raise OptionError(
            f"{model} is neither a packed folder nor a model in the pack cache; "
            f"sparity-edge calibrate {model} packs it and makes its plans."
        )
    return folders


def _packing_for(model: str, layout: str) -> str:
    command = shlex.join(["sparity-edge", "convert", model, "OUT", "--layout", layout])
    return f"{command} makes a packed folder that can carry it."


def _default(model: str) -> str:
    """The plan that a model follows where none is named.

    Raises:
        OptionError: it has none, or several and none of the default name.
    """
    names = sorted({each for folder in _folders(model) for each in plan_names(folder)})
    if not names:
        always = _always_skipped(model)
        without = f" Without one {always} are skipped." if always else ""
        raise OptionError(
            f"{model} has no plans; sparity-edge calibrate {model} makes some.{without}"
        )
    if DEFAULT_PLAN not in names and len(names) > 1:
        raise OptionError(f"{model} has the plans {', '.join(names)}; name the one to show.")
    return DEFAULT_PLAN if DEFAULT_PLAN in names else names[0]


def _always_skipped(model: str) -> str | None:
    """What decoding skips without a plan; None: nothing."""
    from sparity_edge.model.zero_gates import skipped_always

    return next(filter(None, (skipped_always(open_folder(each)) for each in _folders(model))), None)


def _find(model: str, name: str) -> tuple[Path, PlanFamily]:
    for folder in _folders(model):
        if name in plan_names(folder):
            return folder, read_plan(open_folder(folder), name)
    raise _unknown(model, name)


def _unknown(model: str, name: str) -> OptionError:
    known = sorted({each for folder in _folders(model) for each in plan_names(folder)})
    hint = did_you_mean(name, known)
    return OptionError(f"{model} has no plan {name!r}; it has {', '.join(known) or 'none'}.{hint}")


def _summary(family: PlanFamily) -> dict[str, Any]:
    return {
        "name": family.name,
        "method": family.method,
        "layout": family.layout,
        "pieces": list(family.tables),
        "most": round(family.most, 4),
    }


def _line(family: PlanFamily) -> str:
    return f"{family.name:<14} {family.layout:<8} to {family.most:4.0%}  {family.method}"
