"""The pack to load: made in the pack cache once, and calibrated where a plan is to be followed.

A packed folder that the user names is left as it is: whether it carries a plan is for its owner.
"""

from __future__ import annotations

from pathlib import Path

from converters.pack_options import PackOptions
from converters.store import cached_pack, known, named_pack, prepare, pulled_pack
from sparity_edge.choices import DEFAULT_PLAN, SPARSE_LAYOUTS
from sparity_edge.errors import OptionError
from sparity_edge.plans.plan_file import plan_names
from sparity_edge.progress import QUIET, CallContext
from sparity_edge.spelling import did_you_mean

# Of calibration that comes with something else (a first use, `convert`): half of what `calibrate`
# reads, for half the wait.
TOKENS = 32768
# CPU seconds of calibration for each parameter and token; `time` around `calibrate` with the plan
# `auto`, the dearest of those that are not called slow, for SmolLM2 135M on a Zen 5. Larger models
# take less, as gradients are then taken of fewer tokens.
COST = 1.4e-11
SERIAL = {"teal-greedy": 5}  # times that besides, by one thread: a search, of the same model


def prepare_for(
    model: str,
    sparse: bool,
    context: CallContext = QUIET,
    *,
    dtype: str | None = None,
    plan: str | None = None,
    threads: int | None = None,
) -> Path:
    """The packed folder to load.

    Args:
        model: as for `Generator.load`, and so are dtype, plan and threads.
        sparse: whether a plan is to be followed; else the pack that is quickest to read whole.
        context: what may be done to find the model, and whom it is told.

    Raises:
        OptionError: there is no such plan and no method of that name, or as `store.prepare`.
        SourceError, ConfigError, FormatError: the model cannot be found, read or packed.
    """
    options = PackOptions(dtype=dtype)
    if not sparse:
        return prepare(model, options, context)
    named = named_pack(model, options)
    if named is not None:
        return named
    wanted = plan or DEFAULT_PLAN
    carrier = ready_pack(model, wanted, dtype)
    if carrier is not None:
        return carrier
    if (pulled := pulled_pack(model, options, context)) is not None:
        return pulled
    demand_method(model, wanted)
    from converters.calibrate import calibrate

    context.notify(
        f"Calibrating {model} for the sparsity plan {wanted}, once: this takes minutes; "
        "the pack cache keeps it."
    )
    stored = calibrate(
        model,
        methods=[wanted],
        tokens=TOKENS,
        dtype=dtype,
        threads=threads,
        offline=context.offline,
        progress=context.progress,
        notify=context.notify,
    )
    return stored[-1].folder


def ready_pack(model: str, plan: str, dtype: str | None = None) -> Path | None:
    """The pack in the pack cache that carries a plan already; None where it would be made.

    Args:
        model: what is no packed folder.
        plan: its name.
        dtype: as for `Generator.load`.
    """
    for layout in SPARSE_LAYOUTS:
        path = known(model, PackOptions(dtype=dtype, layout=layout))
        if path is not None and plan in plan_names(path):
            return path
    return None


def ready_plans(model: str, dtype: str | None = None) -> list[tuple[Path, str]]:
    """Every plan that a pack in the pack cache carries, with that pack; of each name the first.

    Args:
        model: what is no packed folder; of one that is, nothing is found.
        dtype: as for `Generator.load`.
    """
    if named_pack(model, PackOptions(dtype=dtype)) is not None:
        return []
    found: dict[str, Path] = {}
    for layout in SPARSE_LAYOUTS:
        path = known(model, PackOptions(dtype=dtype, layout=layout))
        if path is not None:
            found = {**dict.fromkeys(plan_names(path), path), **found}
    return [(path, name) for name, path in found.items()]


def demand_method(model: str, plan: str) -> None:
    """Refuse a plan that calibration does not make.

    Raises:
        OptionError: there is no method of that name.
    """
    from converters.methods import METHODS

    if plan not in METHODS:
        hint = did_you_mean(plan, METHODS)
        raise OptionError(
            f"{model} has no plan {plan!r}; those that can be made are {', '.join(METHODS)}.{hint}"
        )


def ready_folder(folder: Path, plan: str) -> Path | None:
    """Where a plan of a packed folder is made already: there, or in its pack in another layout.

    Args:
        folder: the packed folder.
        plan: a name of `converters.methods.METHODS`, or of a plan that the folder carries.
    """
    from converters.calibrate import other_layout

    if plan in plan_names(folder):
        return folder
    layout = other_layout(folder, plan)
    pack = known(str(folder), PackOptions(layout=layout)) if layout else None
    return pack if pack is not None and plan in plan_names(pack) else None


def calibrate_folder(folder: Path, plan: str, context: CallContext, threads: int) -> Path:
    """Make a plan for a packed folder of the user's own, who has asked for it.

    Args:
        folder: the packed folder.
        plan: a name of `converters.methods.METHODS`.
        context: whom it is told.
        threads: how many compute.

    Returns:
        The folder, or a pack of it in the pack cache where its own layout cannot skip anything.

    Raises:
        FormatError: the folder is damaged or cannot be written.
    """
    from converters.calibrate import calibrate, other_layout

    layout = other_layout(folder, plan)
    if layout is not None:
        folder = cached_pack(str(folder), PackOptions(layout=layout), context)
    calibrate(
        str(folder),
        methods=[plan],
        tokens=TOKENS,
        threads=threads,
        offline=context.offline,
        progress=context.progress,
        notify=context.notify,
    )
    return folder


def calibration_seconds(plan: str, parameters: int, threads: int) -> float:
    """Roughly how long calibration on first use takes; `COST` says of what.

    Args:
        plan: the plan to make.
        parameters: of the model.
        threads: how many compute.
    """
    return parameters * TOKENS * COST * (1 / threads + SERIAL.get(plan, 0))
