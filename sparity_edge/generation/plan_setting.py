"""PlanSetting: which plan of a packed folder a model follows, and at which sparsity.

Reads plans when they are first followed and keeps them. Knows nothing of how a plan was made.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparity_edge.choices import DEFAULT_PLAN, MOST_KL
from sparity_edge.errors import NoPlanError, OptionError, SparityError, TooLossyError
from sparity_edge.generation.options import checked_dial
from sparity_edge.plans.plan import PlanFamily
from sparity_edge.spelling import did_you_mean

if TYPE_CHECKING:
    from sparity_edge.packed.folder import PackedFolder, PackedModel
    from sparity_edge.plans.plan import SparsityPlan

POSITIONS_KEPT = 32  # of the dial, the latest
SHOWN_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Follower(Protocol):
    """What can follow a plan: a `Model`, or one whose weights are not in memory."""

    @property
    def packed(self) -> PackedFolder | PackedModel:
        """The packed folder that it stands for."""

    @property
    def plan(self) -> SparsityPlan | None:
        """What decoding skips."""

    def set_plan(self, plan: SparsityPlan | None) -> None:
        """Skip what `plan` says from the next token on; None reads everything."""


class PlanSetting:
    """The sparsity setting of one model.

    Args:
        path: its packed folder.
        model: what is set.
    """

    def __init__(self, path: Path, model: Follower) -> None:
        self._path = path
        self._model = model
        self._families: dict[str, PlanFamily] = {}
        self._chosen: str | None = None
        # Positions that were asked for of late, so that one and the same is one plan.
        self._known: dict[tuple[str, str, float], SparsityPlan] = {}

    def twin(self, model: Follower) -> PlanSetting:
        """The setting of another model of the same weights; plans that were read are shared."""
        other = PlanSetting(self._path, model)
        other._families = self._families
        return other

    @property
    def name(self) -> str | None:
        """The plan in force; None while everything is read."""
        return None if self._model.plan is None else self._model.plan.name

    @property
    def sparsity(self) -> float:
        """The share of decoder weight bytes that decoding is expected to skip."""
        return 0.0 if self._model.plan is None else self._model.plan.sparsity

    @property
    def held_out_kl(self) -> float | None:
        """What is known of the loss that the plan in force brings (`PlanFamily.held_out_kl`)."""
        plan = self._model.plan
        return None if plan is None else self._families[plan.name].held_out_kl(plan.sparsity)

    def active_by_level(self) -> dict[str, dict[str, float]]:
        """Plan -> level -> active weight fraction; reads every plan and keeps none in memory."""
        from sparity_edge.plans.plan_file import plan_names, read_plan

        tables = {}
        for name in plan_names(self._path):
            with contextlib.suppress(SparityError):  # a damaged plan does not make the model less
                family = read_plan(self._model.packed, name)
                tables[name] = {
                    f"{level:.2f}": round(float(np.interp(level, family.levels, family.active)), 3)
                    for level in SHOWN_LEVELS
                    if level <= family.levels[-1]
                }
        return tables

    def change(
        self,
        plan: str | None = None,
        sparsity: float | None = None,
        level: float | None = None,
        *,
        force: bool = False,
    ) -> None:
        """Follow a plan from the next token on.

        Args:
            plan, sparsity, level, force: as for `find`, and so are the errors.
        """
        found = self.find(plan, sparsity, level, force=force)
        self._model.set_plan(found)
        if found is not None:
            self._chosen = found.name

    def find(
        self,
        plan: str | None = None,
        sparsity: float | None = None,
        level: float | None = None,
        *,
        force: bool = False,
    ) -> SparsityPlan | None:
        """The plan at a position of the dial, and the same one whenever it is asked for again.

        Args:
            plan: its name; None: the one chosen before, else the model's default.
            sparsity: the share of weight bytes to skip; 0 reads everything.
            level: the plan's own nominal level, in place of `sparsity`.
            force: give it whatever it is known to cost.

        Returns:
            None: everything is read.

        Raises:
            TooLossyError: its KL on held-out text is above `MOST_KL`.
            OptionError: both or a wrong value were given, or there is no such plan.
            FormatError: the plan is damaged.
        """
        share = checked_dial(sparsity, level)
        if plan is None and share == 0:
            return None
        name = plan or self._chosen or self._default()
        family = self._family(name)
        key = (name, "sparsity" if level is None else "level", share)
        found = self._known.pop(key, None)
        if found is None:
            found = family.at_sparsity(share) if level is None else family.at_level(share)
        if not force:
            refuse_lossy(family, found.sparsity)
        self._known[key] = found
        for old in list(self._known)[:-POSITIONS_KEPT]:
            self._known.pop(old, None)
        return found

    def families(self) -> dict[str, PlanFamily]:
        """The plans of the packed folder by name; one that is damaged is left out."""
        from sparity_edge.plans.plan_file import plan_names

        found = {}
        for name in plan_names(self._path):
            with contextlib.suppress(SparityError):
                found[name] = self._family(name)
        return found

    def _default(self) -> str:
        from sparity_edge.plans.plan_file import plan_names

        names = plan_names(self._path)
        if DEFAULT_PLAN in names or not names:
            return DEFAULT_PLAN
        if len(names) > 1:
            raise OptionError(
                f"{self._path} holds the plans {', '.join(names)} and none named {DEFAULT_PLAN}; "
                "choose one of them by its name."
            )
        return names[0]

    def _family(self, name: str) -> PlanFamily:
        if name not in self._families:
            self._families[name] = family_of(self._model.packed, name)
        return self._families[name]


def family_of(packed: PackedFolder | PackedModel, name: str) -> PlanFamily:
    """A plan family that a packed folder carries.

    Raises:
        NoPlanError: it carries none of that name.
        FormatError: the plan is damaged.
    """
    from sparity_edge.plans.plan_file import plan_names, read_plan

    names = plan_names(packed.path)
    if not names:
        raise NoPlanError(
            f"{packed.path} carries no sparsity plan; what is no packed folder gets one when it "
            "is loaded with a sparsity, and a packed folder by sparity-edge convert with "
            "--calibrate, or by sparity-edge calibrate where it was made with --layout.",
            name,
        )
    if name not in names:
        raise NoPlanError(
            f"{packed.path} carries no plan {name!r}; it carries {', '.join(names)}."
            + did_you_mean(name, names),
            name,
        )
    return read_plan(packed, name)


def refuse_lossy(family: PlanFamily, sparsity: float) -> None:
    """Refuse a position of the dial that is known to change the text much.

    Raises:
        TooLossyError: its KL on held-out text is above `MOST_KL`.
    """
    kl = family.least_kl(sparsity)
    if kl is None or kl <= MOST_KL:
        return
    beyond = "at least " if family.held_out_kl(sparsity) is None else ""
    raise TooLossyError(
        f"Plan {family.name} at sparsity {sparsity:.2f} has a KL of {beyond}{kl:.2f} to the dense "
        f"model on held-out text, more than {MOST_KL:g}, which it has at "
        f"{family.sparsity_within(MOST_KL):.2f}",
        "force=True follows it all the same",
    )
