"""Zero gates: which neurons an FFN with ReLU need not read, without a plan and without a change.

Where the activation makes gates exactly zero, up row and down column of such a neuron add nothing:
they are skipped while decoding, whatever the dial says. It needs rows of up and columns of down in
bundles (layouts `ffn`, `neurons`, `mixed`). Written as a plan, so that it is carried out and
counted as one.
"""

from __future__ import annotations

from dataclasses import replace

from sparity_edge.packed.bundle import BundleLayout
from sparity_edge.packed.folder import PackedFolder, PackedModel
from sparity_edge.plans.plan import NEURONS, SelectionRule, SparsityPlan

NAME = "zero gates"
_NOT_ZERO = SelectionRule("threshold", 0.0)  # active where |gate| > 0


def skips_zero_gates(packed: PackedFolder | PackedModel) -> bool:
    """Whether decoding skips the neurons whose gate is zero."""
    bundled = any(isinstance(each, BundleLayout) for each in packed.layouts.values())
    return packed.config.activation.zeroes and bundled


def skipped_always(packed: PackedFolder | PackedModel) -> str | None:
    """What decoding skips whatever the dial says, in a few words; None: nothing."""
    if not skips_zero_gates(packed):
        return None
    return f"neurons whose gate is zero ({packed.config.activation})"


def zero_gates(packed: PackedFolder | PackedModel) -> SparsityPlan | None:
    """What is skipped without a plan; None where no gate is zero or none could be skipped."""
    if not skips_zero_gates(packed):
        return None
    layers = packed.config.num_hidden_layers
    return SparsityPlan(NAME, "ffn", 0.0, 0.0, ({NEURONS: _NOT_ZERO},) * layers, (None,) * layers)


def with_zero_gates(plan: SparsityPlan, packed: PackedFolder | PackedModel) -> SparsityPlan:
    """The plan, and zero gates where it says nothing of neurons."""
    if not skips_zero_gates(packed):
        return plan
    layers = tuple({NEURONS: _NOT_ZERO, **pieces} for pieces in plan.layers)
    return replace(plan, layers=layers)
