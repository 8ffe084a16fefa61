"""The pack to load: made in the pack cache once, and calibrated where a plan is to be followed.

A packed folder that the user names is left as it is: whether it carries a plan is for its owner.
"""

from __future__ import annotations

from pathlib import Path

from converters.pack_options import PackOptions
from converters.store import cached_pack, known, named_pack
from sparity_edge.choices import DEFAULT_PLAN, SPARSE_LAYOUTS
from sparity_edge.errors import OptionError
from sparity_edge.plans.plan_file import plan_names
from sparity_edge.progress import QUIET, CallContext
from sparity_edge.spelling import did_you_mean

TOKENS = 32768  # of calibration on first use: half of what `calibrate` reads, for half the wait


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
    named = named_pack(model, options)
    if named is not None:
        return named
    if not sparse:
        return cached_pack(model, options, context)
    wanted = plan or DEFAULT_PLAN
    for layout in SPARSE_LAYOUTS:
        path = known(model, PackOptions(dtype=dtype, layout=layout))
        if path is not None and wanted in plan_names(path):
            return path
    from converters.calibrate import calibrate
    from converters.methods import METHODS

    if wanted not in METHODS:
        hint = did_you_mean(wanted, METHODS)
        raise OptionError(
            f"{model} has no plan {wanted!r}; those that can be made are "
            f"{', '.join(METHODS)}.{hint}"
        )
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
