"""The pack to load: made in the pack cache once, and calibrated where a plan is to be followed.

A packed folder that the user names is left as it is: whether it carries a plan is for its owner.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from converters.pack import PackOptions
from converters.store import known, prepare
from sparity_edge.choices import DEFAULT_PLAN, SPARSE_LAYOUTS
from sparity_edge.packed.manifest import is_packed
from sparity_edge.plans.plan_file import plan_names
from sparity_edge.progress import Progress, silent

TOKENS = 32768  # of calibration on first use: half of what `calibrate` reads, for half the wait


def prepare_for(
    model: str,
    sparse: bool,
    *,
    dtype: str | None = None,
    plan: str | None = None,
    threads: int | None = None,
    offline: bool = False,
    progress: Progress = silent,
    notify: Callable[[str], None] = lambda _: None,
) -> Path:
    """The packed folder to load; arguments as for `Generator.load`.

    Args:
        sparse: whether a plan is to be followed; else the pack that is quickest to read whole.

    Raises:
        OptionError: there is no such plan and no method of that name, or as `store.prepare`.
        SourceError, ConfigError, FormatError: the model cannot be found, read or packed.
    """
    if is_packed(model) or not sparse:
        options = PackOptions(dtype=dtype)
        return prepare(model, options, offline=offline, progress=progress, notify=notify)
    wanted = plan or DEFAULT_PLAN
    for layout in SPARSE_LAYOUTS:
        path = known(model, PackOptions(dtype=dtype, layout=layout))
        if path is not None and wanted in plan_names(path):
            return path
    from converters.calibrate import calibrate

    notify(
        f"Calibrating {model} for the sparsity plan {wanted}, once: this takes minutes; "
        "the cache keeps it."
    )
    stored = calibrate(
        model,
        methods=[wanted],
        tokens=TOKENS,
        dtype=dtype,
        threads=threads,
        offline=offline,
        progress=progress,
        notify=notify,
    )
    return stored[-1].folder
