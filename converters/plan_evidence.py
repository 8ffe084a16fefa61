"""Evidence for plans that were calibrated without: what they change of held-out text.

Methods that fit layer by layer leave none, since a pass over text for each level of each plan would
take longer than all of them. It is measured for a plan that is about to be followed, once, and kept
with the plan. Knows no method.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, replace
from pathlib import Path

from converters.allocate.evidence import measure
from converters.calibration.observe import dense_model
from converters.calibration.windows import LEAST_WINDOWS, Windows, token_windows
from sparity_edge.errors import FormatError, OptionError
from sparity_edge.model.opening import open_folder
from sparity_edge.packed.folder import PackedFolder, read_weights
from sparity_edge.plans.plan import PlanFamily
from sparity_edge.plans.plan_file import add_plan, plan_names, read_plan
from sparity_edge.progress import QUIET, CallContext, Progress
from sparity_edge.text.default_text import default_documents
from sparity_edge.text.tokenizer import Tokenizer

WINDOW = 512  # tokens of a window
WINDOWS = 3  # that evidence is taken of: a KL within about a sixth
BEHIND = 65536  # tokens of the default text that calibration may have read
TRIED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # sparsities, up to the first of large KL


def ready_evidence(path: Path, plan: str, threads: int, context: CallContext = QUIET) -> None:
    """Measure what a plan changes of held-out text, if that has not been done, and keep it there.

    Args:
        path: the packed folder that carries the plan; nothing is measured where it carries none of
            that name, or what was found could not be kept.
        plan: its name.
        threads: how many compute.
        context: whom it is told.

    Raises:
        FormatError, ConfigError: the plan or the folder is damaged.
    """
    if plan not in plan_names(path) or not os.access(path, os.W_OK):
        return
    folder = open_folder(path)
    family = read_plan(folder, plan)
    if family.notes.get("evidence"):
        return
    try:
        windows = held_out(folder)
    except OptionError:  # too few tokens in the default text for so large a vocabulary
        return
    context.notify(f"Measuring on held-out text what plan {plan} changes, once; it is kept.")
    found = with_evidence(folder, family, windows, threads, context.progress)
    with contextlib.suppress(FormatError):
        add_plan(folder, found)


def held_out(folder: PackedFolder) -> Windows:
    """Windows of the default text that calibration has not read, spread over the rest of it.

    Raises:
        OptionError: there is too little of it.
        SourceError: the tokenizer is damaged.
    """
    config = folder.config
    window = min(WINDOW, config.max_position_embeddings)
    tokenizer = Tokenizer.from_folder(folder.path)
    tokenizer.demand_rows(config.vocab_size)
    everything = token_windows(
        tokenizer, config.eos_token_ids, default_documents(), 1 << 30, window
    )
    rest = everything[min(BEHIND // window, len(everything) - LEAST_WINDOWS) :]
    return rest[:: len(rest) // WINDOWS][:WINDOWS]


def with_evidence(
    folder: PackedFolder, family: PlanFamily, windows: Windows, threads: int, progress: Progress
) -> PlanFamily:
    """A plan family with its evidence among its notes.

    Args:
        folder: that carries it.
        family: measured at sparsities from the first of `TRIED` on.
        windows: token ids that it was not made of.
        threads: how many compute.
        progress: told of passes.
    """
    plans = [family.at_sparsity(each) for each in TRIED if each <= family.most]
    plans = plans or [family.at_sparsity(family.most)]
    with dense_model(read_weights(folder), windows.shape[1], threads, progress) as model:
        evidence = measure(model, plans, windows, progress=progress)
    return replace(family, notes={**family.notes, "evidence": [asdict(each) for each in evidence]})
