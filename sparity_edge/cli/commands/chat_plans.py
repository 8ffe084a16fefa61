"""ChatPlans: sparsity plans for a chat, made with the options that its model was loaded with.

A model from the pack cache is loaded anew from the pack that carries the plan; a packed folder of
the user's own gets the plan itself, or a pack in another layout. Knows nothing of conversations.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparity_edge.choices import DEFAULT_PLAN
from sparity_edge.cli.commands.loading import load_generator, progress_bars
from sparity_edge.plans.plan_file import plan_names
from sparity_edge.progress import CallContext
from sparity_edge.terminal.screen import Screen

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator


class ChatPlans:
    """A `PlanMaker` for the model that the command line names.

    Args:
        arguments: the understood command line.
        screen: where bars and notes go.
    """

    def __init__(self, arguments: Namespace, screen: Screen) -> None:
        self._arguments = arguments
        self._screen = screen
        self._model = str(arguments.model)

    def names(self) -> Sequence[str]:
        """See `PlanMaker`."""
        from converters.methods import METHODS
        from converters.store import packed_path

        folder = packed_path(self._model)
        quick = [name for name, method in METHODS.items() if not method.slow]
        return sorted({*quick, *(plan_names(folder) if folder else ())})

    def seconds(self, plan: str | None, generator: Generator) -> float:
        """See `PlanMaker`."""
        from converters.ready import calibration_seconds, demand_method, ready_folder, ready_plans
        from converters.store import packed_path

        folder = packed_path(self._model)
        made = (
            [name for _, name in ready_plans(self._model, self._arguments.dtype)]
            if folder is None
            else plan_names(folder)
        )
        if plan in made or (plan is None and made):
            return 0.0
        plan = plan or DEFAULT_PLAN
        demand_method(self._model, plan)
        if folder is not None and ready_folder(folder, plan):
            return 0.0
        parameters = int(generator.info()["parameters"])
        return calibration_seconds(plan, parameters, generator.threads)

    def load(self, plan: str | None, share: float, generator: Generator, force: bool) -> Generator:
        """See `PlanMaker`."""
        from converters.store import packed_path

        folder = packed_path(self._model)
        changed = {"plan": plan, "sparsity": share, "level": None, "force": force}
        if folder is not None and not (plan is None and plan_names(folder)):
            carrier = self._carrier(folder, plan or DEFAULT_PLAN, generator.threads)
            changed |= {"model": str(carrier), "dtype": None}  # its numbers are the folder's
        return load_generator(Namespace(**{**vars(self._arguments), **changed}), self._screen)

    def _carrier(self, folder: Path, plan: str, threads: int) -> Path:
        from converters.ready import calibrate_folder, ready_folder

        carrier = ready_folder(folder, plan)
        if carrier is not None:
            return carrier
        with progress_bars(self._arguments, self._screen) as bars:
            context = CallContext(self._arguments.offline, bars, bars.notify)
            return calibrate_folder(folder, plan, context, threads)
