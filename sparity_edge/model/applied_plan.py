"""AppliedPlan: a plan made ready for one model and machine, and the count of what it reads.

The active weight fraction is bytes of decoder weights read, headers of scales, folded matrices and
gains included, over the bytes that the same numbers have in a dense pack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparity_edge.arrays import Floats, Integers, aligned_zeros, padded, rows
from sparity_edge.config.model_config import ADAPTER
from sparity_edge.errors import OptionError
from sparity_edge.kernels.machines import Machine
from sparity_edge.kernels.operations import Matrix, Operations
from sparity_edge.kernels.sparse_vector import Selector, SparseVector
from sparity_edge.model.zero_gates import with_zero_gates
from sparity_edge.packed.bundle import BundleLayout, PackedBundle
from sparity_edge.packed.folder import PackedFolder, PackedModel
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.plans.added_bytes import added_bytes, choice_of, gain_layout
from sparity_edge.plans.plan import (
    LINEARS,
    NEURONS,
    SITES,
    SelectionRule,
    SparsityPlan,
    linear_name,
)

SITE_NAMES = tuple(dict.fromkeys(SITES.values()))
# The halves of a layer by the pieces whose gains read the normalised input of that half.
ATTENTION, FFN = range(2)
HALVES = (("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj", NEURONS))
MOST_GAINS = max(map(len, HALVES))
PLANS_KEPT = 8  # made ready: as many as sequences are decoded side by side

Gains = tuple[Matrix, Floats]  # (pieces, hidden) and offsets (pieces,)


class AppliedPlan:
    """What a pass asks about the plan: selectors, biases and folded matrices by layer.

    Args:
        plan: what is to be skipped.
        packed: the model's weights.
        biases: of the linears, by layer and name; None where there is none.
        machine: what will carry it out.

    Raises:
        OptionError: the model stores a piece so that nothing of it can be skipped.
    """

    def __init__(
        self,
        plan: SparsityPlan,
        packed: PackedModel,
        biases: Sequence[Mapping[str, Floats | None]],
        machine: Machine,
    ) -> None:
        self.plan = plan
        self._layouts = [_layouts(packed, layer) for layer in range(len(plan.layers))]
        self._selectors: list[dict[str, Selector]] = []
        self._gains: list[tuple[Gains | None, ...]] = []
        self._biases = [dict(each) for each in biases]
        for layer, pieces in enumerate(plan.layers):
            self._refuse_unskippable(packed, layer, pieces)
            selectors, found = _selectors(pieces, self._layouts[layer])
            self._selectors.append(selectors)
            packed_gains = [_packed(each) if each else None for each in found]
            self._gains.append(
                tuple(each and (machine.matrix(each[0]), each[1]) for each in packed_gains)
            )
        self.means: list[Matrix | None] = [
            None if mean is None else machine.matrix(mean) for mean in plan.means
        ]
        self._fold_centres(packed, machine)
        self.layer_bytes = layer_bytes(packed)
        self.added_bytes = added_bytes(plan)

    def selector(self, layer: int, piece: str) -> Selector | None:
        """Which channels count; None: all."""
        return self._selectors[layer].get(piece)

    def gains(self, layer: int, half: int) -> Gains | None:
        """What makes the exponents of a half's gains, a column each, of its normalised input."""
        return self._gains[layer][half]

    def bias(self, layer: int, linear: str) -> Floats | None:
        """The bias of a linear, what its centre gives included."""
        return self._biases[layer].get(linear)

    def reader(self, used: Sequence[tuple[int, str]], vectors: Sequence[SparseVector]) -> Reader:
        """What counts the bytes of a pass, given its pieces and the sparse vector of each."""
        distinct = list({id(each): each for each in vectors}.values())
        index = {id(each): position for position, each in enumerate(distinct)}
        row_bytes, channels = np.zeros((2, len(distinct)))
        for (layer, piece), each in zip(used, vectors, strict=True):
            row_bytes[index[id(each)]] += self._layouts[layer][piece].row_bytes
            channels[index[id(each)]] = each.x.shape[1]
        sites = [SITE_NAMES.index(SITES[piece]) for _, piece in used]
        site_of = np.zeros(len(distinct), dtype=np.int64)
        for each, site in zip(vectors, sites, strict=True):
            site_of[index[id(each)]] = site
        always = self.layer_bytes + self.added_bytes - float(row_bytes @ channels)
        return Reader(distinct, row_bytes, channels, site_of, always)

    def _refuse_unskippable(
        self, packed: PackedModel, layer: int, pieces: Mapping[str, SelectionRule]
    ) -> None:
        for piece in pieces:
            layout = self._layouts[layer].get(piece)
            if layout is None or (isinstance(layout, Layout) and layout.orientation != "input"):
                raise OptionError(
                    f"Plan {self.plan.name} skips parts of {piece}, which this model stores so "
                    f"that they cannot be skipped; pack it anew: sparity-edge convert "
                    f"{packed.path} OUT --layout {self.plan.layout}."
                )

    def _fold_centres(self, packed: PackedModel, machine: Machine) -> None:
        """W c added to the bias of every linear whose input is centred."""
        work: list[tuple[Matrix, Floats, Floats | None, Floats]] = []
        for layer, selectors in enumerate(self._selectors):
            for piece in LINEARS:
                selector = selectors.get(piece)
                if selector is None or selector.centre is None:
                    continue
                stored = packed.tensors[linear_name(layer, piece)]
                assert isinstance(stored, PackedMatrix)
                out = rows(1, stored.layout.shape[0])
                centre = rows(1, stored.layout.shape[1])
                centre[0] = selector.centre
                bias = self._biases[layer].get(piece)
                work.append((machine.matrix(stored), centre, bias, out))
                self._biases[layer][piece] = out[0]
        if not work:
            return

        def fold(ops: Operations) -> None:
            for matrix, centre, bias, out in work:
                ops.linear(centre, matrix, out, bias)

        machine.prepare(fold)(False)


class AppliedPlans:
    """The plans that a model was told to follow of late, so that it may change between them.

    Args:
        packed: the model's weights.
        biases: of its linears, as `AppliedPlan` takes them.
        machine: what will carry the plans out.
    """

    def __init__(
        self,
        packed: PackedModel,
        biases: Sequence[Mapping[str, Floats | None]],
        machine: Machine,
    ) -> None:
        self._packed, self._biases, self._machine = packed, biases, machine
        # By identity of the plan, which stands beside what was made of it; the latest last.
        self._made: dict[int, tuple[SparsityPlan, AppliedPlan]] = {}

    def get_or_make(self, plan: SparsityPlan) -> AppliedPlan:
        """A plan made ready, the latest from now on.

        Raises:
            OptionError: the model's layout does not let it be skipped.
        """
        known = self._made.pop(id(plan), None) or (plan, self._ready(plan))
        self._made[id(plan)] = known
        for old in list(self._made)[:-PLANS_KEPT]:
            del self._made[old]
        return known[1]

    def __contains__(self, applied: AppliedPlan | None) -> bool:
        """Whether it is kept."""
        return any(each is applied for _, each in self._made.values())

    def _ready(self, plan: SparsityPlan) -> AppliedPlan:
        whole = with_zero_gates(plan, self._packed)
        return AppliedPlan(whole, self._packed, self._biases, self._machine)


class Reader:
    """Counts what passes read; `tallies` is filled by the pass itself."""

    def __init__(
        self,
        vectors: Sequence[SparseVector],
        row_bytes: Any,
        channels: Any,
        sites: Integers,
        always: float,
    ) -> None:
        self.vectors = vectors
        self.tallies = np.zeros(len(vectors), dtype=np.int64)
        self._counts = len(vectors[0].counts) if vectors else 1
        self._row_bytes, self._channels, self._sites = row_bytes, channels, sites
        self._always = always

    @property
    def bytes_read(self) -> float:
        """Bytes of decoder weights that counted for a token of the latest pass, averaged."""
        return self._always + float(self.tallies @ self._row_bytes) / self._counts

    @property
    def densities(self) -> dict[str, float]:
        """Active channels / channels at each site with active channels in the latest pass."""
        count = len(SITE_NAMES)
        active = np.bincount(self._sites, self.tallies, count) / self._counts
        possible = np.bincount(self._sites, self._channels, count)
        return {
            name: float(active[index] / possible[index])
            for index, name in enumerate(SITE_NAMES)
            if possible[index] > 0
        }


def _selectors(
    pieces: Mapping[str, SelectionRule], layouts: Mapping[str, Layout | BundleLayout]
) -> tuple[dict[str, Selector], tuple[list[Floats], ...]]:
    """One selector for each piece; pieces of a site with one rule share theirs.

    Returns:
        The selectors, and the gains of each half in the order of their columns.
    """
    known: dict[Any, Selector] = {}
    gains: tuple[list[Floats], ...] = tuple([] for _ in HALVES)
    result = {}
    for piece, rule in pieces.items():
        key = choice_of(piece, rule)
        if key not in known:
            column, half = None, gains[piece not in HALVES[ATTENTION]]
            if rule.gain is not None:
                column = len(half)
                half.append(rule.gain)
            known[key] = Selector.of(rule, _channels(layouts[piece]), column)
        result[piece] = known[key]
    return result, gains


def _packed(gains: Sequence[Floats]) -> tuple[PackedMatrix, Floats]:
    """Gains (1 + hidden,) as a matrix of float32 rows, and their offsets."""
    stacked = np.stack(gains)
    count, size = stacked.shape
    layout = gain_layout(count, size - 1)
    data = aligned_zeros(layout.nbytes)
    data.view(np.float32).reshape(count, -1)[:, : size - 1] = stacked[:, 1:]
    return PackedMatrix(layout, data), padded(stacked[:, 0])


def _layouts(packed: PackedModel, layer: int) -> dict[str, Layout | BundleLayout]:
    """How each piece is stored; a piece that the layer does not have is missing."""
    found: dict[str, Layout | BundleLayout] = {}
    for linear in LINEARS:
        stored = packed.tensors.get(linear_name(layer, linear))
        if isinstance(stored, PackedMatrix):
            found[linear] = stored.layout
    bundle = packed.tensors.get(f"model.layers.{layer}.mlp.up_down")
    if isinstance(bundle, PackedBundle):
        found[NEURONS] = bundle.layout
    return found


def _channels(layout: Layout | BundleLayout) -> int:
    return layout.neurons if isinstance(layout, BundleLayout) else layout.shape[1]


def layer_bytes(packed: PackedFolder | PackedModel) -> int:
    """Bytes of the weights of all decoder layers."""
    return sum(each.nbytes for name, each in packed.layouts.items() if ".layers." in name)


def dense_layer_bytes(packed: PackedModel) -> int:
    """Bytes that the weights of all decoder layers have in a dense pack of the same numbers.

    That pack is of the model as it came, which has no residual adapters.
    """
    return sum(
        each.dense_nbytes
        for name, each in packed.layouts.items()
        if ".layers." in name and ADAPTER not in name
    )
