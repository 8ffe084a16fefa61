"""GET /v1/plans: the sparsity plans of the model, how far each reaches and what that costs.

For a dial in a client: positions in small steps with what calibration measured at them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from fastapi import FastAPI

from sparity_edge.choices import MOST_KL
from sparity_edge.plans.plan import PlanFamily
from sparity_edge.server.scheduler import Scheduler

STEP = 0.05  # of sparsity, between two positions that are told


def add_plans(app: FastAPI, scheduler: Scheduler) -> None:
    """Put the route into an application.

    Args:
        app: gets it.
        scheduler: decodes the model whose plans they are.
    """

    @app.get("/v1/plans")
    async def plans() -> dict[str, Any]:
        setting = scheduler.loaded.plan_setting
        families = await asyncio.to_thread(setting.families)
        return {
            "object": "list",
            "default": str(scheduler.followed.setting),
            "data": [_described(each) for each in families.values()],
        }


def _described(family: PlanFamily) -> dict[str, Any]:
    most = int(family.most / STEP + 1e-6)
    shares = [round(step * STEP, 4) for step in range(most + 1)]
    if family.most - shares[-1] > 1e-3:
        shares.append(int(family.most * 1e4) / 1e4)
    return {
        "id": family.name,
        "object": "plan",
        "method": family.method,
        "most_sparsity": round(family.most, 4),
        "most_level": round(float(family.levels[-1]), 4),
        # Beyond it a request needs force=true.
        "most_sparsity_unforced": round(min(family.most, _unforced(family)), 4),
        "positions": [_position(family, share) for share in shares],
    }


def _unforced(family: PlanFamily) -> float:
    """The largest sparsity that is followed unasked; what was never measured is."""
    measured = family.least_kl(family.most)
    if measured is None or measured <= MOST_KL:
        return family.most
    return family.sparsity_within(MOST_KL)


def _position(family: PlanFamily, share: float) -> dict[str, Any]:
    """One place of the dial; its KL is None where calibration has not measured it."""
    kl = family.held_out_kl(share)
    return {
        "sparsity": share,
        "level": round(float(np.interp(share, 1 - family.active, family.levels)), 4),
        "active_weight_fraction": round(1 - share, 4),
        "kl": None if kl is None else round(kl, 5),
    }
