"""Plan families made by hand, thresholds on every piece a layout allows, and plans followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from stepwise import all_logits

from sparity_edge.arrays import Floats
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.model import Model
from sparity_edge.packed.folder import PackedModel
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.plans.plan import LINEARS, NEURONS, PlanFamily

INPUTS = {
    "ffn": (),
    "input": LINEARS,
    "neurons": ("q_proj", "o_proj"),
    "mixed": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"),
}
LEVELS = np.array([0.0, 0.3, 0.6, 0.9], dtype=np.float32)


def channels(config: ModelConfig, piece: str) -> int:
    """How many channels a piece has."""
    if piece == NEURONS:
        return config.intermediate_size
    part = "self_attn" if piece[0] in "qkvo" else "mlp"
    return config.linear_shape(f"{part}.{piece}")[1]


def family(
    packed: PackedModel,
    layout: str,
    *,
    rule: str = "threshold",
    weights: bool = False,
    centres: bool = False,
    gains: bool = False,
    scale: float = 1.0,
) -> PlanFamily:
    """A family whose thresholds rise with the level; numbers come from a fixed seed."""
    from sparity_edge.plans.plan_file import fingerprint

    random = np.random.default_rng(7)
    config = packed.config
    count = config.num_hidden_layers
    pieces = [*INPUTS[layout], *([] if layout == "input" else [NEURONS])]

    def table(low: float, high: float) -> dict[str, np.ndarray]:
        return {
            piece: random.uniform(low, high, (count, channels(config, piece))).astype(np.float32)
            for piece in pieces
        }

    values = LEVELS * (0.9 if rule.startswith("top") else scale)
    means: tuple[PackedMatrix, ...] = ()
    if centres and layout != "input":
        side = config.hidden_size
        shape = Layout("f32", "output", (side, side))
        means = tuple(
            PackedMatrix(shape, _packed_floats(random.normal(size=(side, side)) / side, shape))
            for _ in range(count)
        )
    return PlanFamily(
        name="by-hand",
        method="numbers from a fixed seed",
        rule=rule,
        layout=layout,
        model=fingerprint(packed),
        levels=LEVELS,
        active=np.array([1.0, 0.9, 0.7, 0.5], dtype=np.float32),
        tables={piece: np.outer(values, np.ones(count)).astype(np.float32) for piece in pieces},
        weights=table(0.5, 2.0) if weights else {},
        centres=table(-0.2, 0.2) if centres else {},
        predictors={piece: predictors(count) for piece in pieces} if rule == "scaled" else {},
        gains={piece: gains_of(config, piece) for piece in pieces} if gains else {},
        means=means,
        notes={"by": "tests"},
    )


def predictors(layers: int) -> np.ndarray:
    """Of as many layers; factors from about a half to two."""
    random = np.random.default_rng(11)
    return random.normal(0, 0.2, (layers, 4)).astype(np.float32)


def gains_of(config: ModelConfig, piece: str) -> np.ndarray:
    """Of one piece in all layers; factors from about a third to three. k and v share one."""
    random = np.random.default_rng([13, 1 if piece == "v_proj" else len(piece) + ord(piece[0])])
    if piece == "k_proj":
        random = np.random.default_rng([13, 1])
    size = (config.num_hidden_layers, 1 + config.hidden_size)
    return (random.normal(0, 0.6, size) / np.sqrt(config.hidden_size)).astype(np.float32)


def _packed_floats(values: np.ndarray, layout: Layout) -> np.ndarray:
    from converters.numbers.layout_bytes import pack_matrix

    return pack_matrix(values.astype(np.float32), layout)


def masked_and_sparse(packed: PackedModel, plan: Any, ids: Sequence[int]) -> list[Floats]:
    """All logits with a plan followed, by masks in NumPy and by sparse kernels, token by token."""
    results = []
    for machine, step in ((ReferenceMachine(), len(ids)), (ThreadedMachine(2), 1)):
        model = Model(packed, machine, 64, "f32")
        model.set_plan(plan)
        results.append(all_logits(model, ids, step, sparse=True))
        model.close()
    return results
