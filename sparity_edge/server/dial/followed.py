"""What a request asks of the sparsity dial: the plan that its answer follows, and its name.

Checked as `Generator.set_plan` checks it. Knows nothing of HTTP and of how a plan is followed.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparity_edge.errors import NoPlanError, OptionError
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.plans.plan import SparsityPlan
from sparity_edge.plans.setting import Setting
from sparity_edge.server.body import Dialled
from sparity_edge.server.errors.shapes import clipped

PLAN_HEADER = "X-Sparity-Plan"


@dataclass(frozen=True)
class Followed:
    """What decoding skips.

    Args:
        plan: None: nothing.
        setting: the position of the dial that it stands for.
    """

    plan: SparsityPlan | None
    setting: Setting

    @classmethod
    def of(cls, plan: SparsityPlan | None, level: float | None = None) -> Followed:
        """A plan with its place on the dial.

        Args:
            plan: None: everything is read.
            level: that it was asked for by, where it was.
        """
        if plan is None or not any(plan.layers):
            return cls(None, Setting())
        if level is not None:
            return cls(plan, Setting(plan.name, level=level))
        return cls(plan, Setting(plan.name, sparsity=round(plan.sparsity, 4)))


def followed(loaded: LoadedModel, body: Dialled) -> Followed | None:
    """The plan that a request asks for; None: what the server follows.

    Args:
        loaded: the model.
        body: of the request.

    Raises:
        OptionError: the model has no such plan, it does not reach that far, or it is known to
            change the text too much and `force` was not given.
        FormatError: the plan is damaged.
    """
    plan, sparsity, level = body.plan, body.sparsity, body.level
    if sparsity is None and level is None:
        if plan is not None:
            raise OptionError("plan says which weights to skip; say how many with sparsity.")
        return None
    try:
        found = loaded.plan_setting.find(plan, sparsity, level, force=body.force)
    except NoPlanError as error:  # its sentence names files of this machine
        names = sorted(loaded.plan_setting.families())
        if names:
            raise OptionError(
                f"plan={clipped(error.plan)} is none of {', '.join(names)}."
            ) from None
        raise OptionError(
            "The model is served without sparsity plans; leave plan, sparsity and level out, or "
            "start the server with --plan auto."
        ) from None
    return Followed.of(found, level)
