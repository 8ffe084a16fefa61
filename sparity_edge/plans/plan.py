"""SparsityPlan: what is skipped where, as data; how it came about is the converters' affair.

A family is a table over levels from 0 to at most 0.9, so that one calibration serves every
position of the dial; a plan is one row of it. All methods are one rule: channel i of a vector is
active where |x_i - centre_i| * weight_i > tau, which folds into one threshold per channel. A vector
that has such a rule is called a piece: the input of one linear, or `neurons`, the gates of the FFN,
which decide about up rows and down columns together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparity_edge.arrays import Floats
from sparity_edge.choices import MAX_LEVEL
from sparity_edge.config.values import show
from sparity_edge.errors import FormatError, OptionError
from sparity_edge.packed.layout import PackedMatrix

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NEURONS = "neurons"
PIECES = (*LINEARS, NEURONS)
# The vector whose channels each piece selects, named as in the methods' papers.
SITES = {
    "q_proj": "attn_in",
    "k_proj": "attn_in",
    "v_proj": "attn_in",
    "o_proj": "attn_out",
    "gate_proj": "mlp_in",
    "up_proj": "mlp_in",
    "down_proj": "mlp_mid",
    NEURONS: "gate",
}
# Rules by which the share dropped is the same in each so many neighbouring channels.
NEIGHBOURS = {"top-of-4": 4, "top-of-8": 8, "top-of-16": 16, "top-of-32": 32}
RULES = ("threshold", "top", "scaled", *NEIGHBOURS)
PREDICTOR = 4  # numbers of one, of rule `scaled`


def linear_name(layer: int, linear: str) -> str:
    """The checkpoint's name of the weight of one of LINEARS."""
    part = "self_attn" if LINEARS.index(linear) < 4 else "mlp"
    return f"model.layers.{layer}.{part}.{linear}.weight"


@dataclass(frozen=True)
class SelectionRule:
    """Which channels of one vector of one layer are active.

    Rule `threshold`: a channel is active where |x - centre| * weight > value. Rule `top`: the share
    `value` of the channels, those of smallest |x - centre| * weight, is dropped for every token;
    rules `top-of-M`: of each M neighbouring channels, rounded to whole ones (N:M sparsity).
    Rule `scaled`: as `threshold`, but the value is multiplied by a factor that the predictor makes
    of the vector (kernels/sparse/threshold_factor.py). With a gain, rule `threshold` divides the
    value by exp(gain[0] + gain[1:] . h), h the normalised input of the half of the layer that the
    vector belongs to, the exponent clipped to -1..1: a token that a change would hurt keeps more.
    """

    rule: str
    value: float
    weights: Floats | None = None  # (channels,); None: ones
    centre: Floats | None = None  # (channels,); None: zeros
    predictor: Floats | None = None  # (PREDICTOR,), of rule `scaled`
    gain: Floats | None = None  # (1 + hidden,), of rule `threshold`

    def thresholds(self, channels: int) -> Floats:
        """The largest |x - centre| that is dropped, the factor left out, (channels,)."""
        value = np.full(channels, self.value, dtype=np.float32)
        return value if self.weights is None else value / self.weights

    def kept(self, channels: int) -> int:
        """How many channels rule `top` keeps, or rules `top-of-M` of each M."""
        if self.rule in NEIGHBOURS:
            return round((1 - self.value) * NEIGHBOURS[self.rule])
        return max(1, round((1 - self.value) * channels))

    @property
    def by_share(self) -> bool:
        """Whether the value is a share of channels."""
        return self.rule == "top" or self.rule in NEIGHBOURS


@dataclass(frozen=True)
class SparsityPlan:
    """One position of the dial."""

    name: str  # of the family
    layout: str  # the pack layout that it needs
    level: float  # the method's own nominal level
    sparsity: float  # expected share of decoder weight bytes that is not read
    # By layer: piece -> its rule; a piece without one stays dense.
    layers: tuple[Mapping[str, SelectionRule], ...]
    means: tuple[PackedMatrix | None, ...]  # by layer: the folded remainder of centred gates


@dataclass(frozen=True)
class PlanFamily:
    """A table of plans over the dial, as one calibration gives it.

    Raises:
        FormatError: the fields contradict each other.
    """

    name: str
    method: str  # what made it, in a few words
    rule: str  # one of RULES
    layout: str  # the pack layout that stores its pieces so that they can be skipped
    model: str  # fingerprint of the model
    levels: Floats  # (n,) nominal, ascending, the first 0
    active: Floats  # (n,) active weight fraction on the calibration text, the first 1
    # piece -> (n, layers): tau, or the share of channels dropped (rules `top...`); 0 means dense.
    tables: Mapping[str, Floats]
    weights: Mapping[str, Floats] = field(default_factory=dict)  # piece -> (layers, channels)
    centres: Mapping[str, Floats] = field(default_factory=dict)  # piece -> (layers, channels)
    predictors: Mapping[str, Floats] = field(default_factory=dict)  # piece -> (layers, PREDICTOR)
    gains: Mapping[str, Floats] = field(default_factory=dict)  # piece -> (layers, 1 + hidden)
    means: tuple[PackedMatrix | None, ...] = ()  # by layer; empty: none
    notes: Mapping[str, Any] = field(default_factory=dict)  # evidence and origin, ready for JSON

    def __post_init__(self) -> None:
        count = len(self.levels)
        _demand(self.rule in RULES, f"rule {show(self.rule)} is none of {', '.join(RULES)}")
        _demand(set(self.tables) <= set(PIECES) and bool(self.tables), "it names unknown pieces")
        _demand(count > 1 and len(self.active) == count, "its levels and fractions do not match")
        _demand(_rises(self.levels) and self.levels[0] == 0, "its levels do not rise from 0")
        _demand(float(self.levels[-1]) <= MAX_LEVEL + 1e-6, f"a level lies above {MAX_LEVEL}")
        _demand(_rises(-self.active) and self.active[0] == 1, "its fractions do not fall from 1")
        _demand(float(self.active[-1]) > 0, "a fraction is not above 0")
        layers = {table.shape[1] for table in self.tables.values()}
        _demand(len(layers) == 1, "its tables differ in layers")
        for table in self.tables.values():
            _demand(table.shape[0] == count, "a table does not fit its levels")
            _demand(_bounded(table) and not table[0].any(), "a table is negative or not dense at 0")
            by_share = SelectionRule(self.rule, 0).by_share
            _demand(not by_share or float(table.max()) <= 1, "it drops more than there is")
        for name, per_channel in (*self.weights.items(), *self.centres.items()):
            _demand(name in self.tables, f"it describes channels of {name} but has no rule for it")
            _demand(len(per_channel) == self.layers, "channels are given for some layers only")
            _demand(bool(np.isfinite(per_channel).all()), "a channel's number is not finite")
        for weights in self.weights.values():
            _demand(bool((weights > 0).all()), "a channel's weight is not above 0")
        wanted_predictors = set(self.tables) if self.rule == "scaled" else set()
        _demand(set(self.predictors) == wanted_predictors, "its predictors do not fit its rule")
        for predictor in self.predictors.values():
            _demand(predictor.shape == (self.layers, PREDICTOR), "a predictor is of another size")
            _demand(bool(np.isfinite(predictor).all()), "a predictor's number is not finite")
        _demand(not self.gains or self.rule == "threshold", "its gains do not fit its rule")
        _demand(set(self.gains) <= set(self.tables), "it has gains of what it has no rule for")
        for gain in self.gains.values():
            _demand(gain.ndim == 2 and len(gain) == self.layers, "a gain is of another size")
            _demand(bool(np.isfinite(gain).all()), "a gain's number is not finite")
        _demand(len(self.means) in (0, self.layers), "folded matrices are given for some layers")
        if NEURONS in self.centres:
            wanted = self.tables[NEURONS].any(axis=0) & self.centres[NEURONS].any(axis=1)
            folded = [mean is not None for mean in self.means] or [False] * self.layers
            _demand(not (wanted & ~np.array(folded)).any(), "a folded matrix is missing")

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return int(next(iter(self.tables.values())).shape[1])

    @property
    def most(self) -> float:
        """The largest sparsity that the table reaches."""
        return float(1 - self.active[-1])

    def held_out_kl(self, sparsity: float) -> float | None:
        """KL to the dense model, in nats a token, that calibration measured on held-out text.

        Linear between what was measured, which overstates a loss that grows ever faster; None
        beyond that, or where nothing was measured.
        """
        shares, losses = self._evidence()
        return float(np.interp(sparsity, shares, losses)) if sparsity <= shares[-1] else None

    def least_kl(self, sparsity: float) -> float | None:
        """What the KL to the dense model is at least, in nats a token; None where that is unknown.

        Beyond the largest sparsity that was measured it is that one's.
        """
        shares, losses = self._evidence()
        return float(np.interp(sparsity, shares, losses)) if len(shares) > 1 else None

    def sparsity_within(self, kl: float) -> float:
        """The largest sparsity up to which the KL measured on held-out text is at most `kl`."""
        shares, losses = self._evidence()
        above = np.flatnonzero(losses > kl)
        if not len(above):
            return float(shares[-1])
        part = slice(above[0] - 1, above[0] + 1)
        return float(np.interp(kl, losses[part], shares[part]))

    def _evidence(self) -> tuple[Any, Any]:
        """Sparsities that were measured on held-out text, from 0, and the KL of each in nats."""
        evidence = self.notes.get("evidence")
        try:
            points = sorted((1 - each["active"], each["kl"]) for each in evidence or ())
            shares, losses = np.array([(0.0, 0.0), *points], dtype=np.float64).T
        except (TypeError, KeyError, ValueError):  # notes are anybody's
            return np.zeros(1), np.zeros(1)
        return shares, losses

    def at_sparsity(self, sparsity: float) -> SparsityPlan:
        """The plan that leaves the share `sparsity` of decoder weight bytes unread.

        Raises:
            OptionError: it lies outside of the table.
        """
        if not 0 <= sparsity <= self.most + 1e-6:
            raise OptionError(
                f"sparsity={show(sparsity)} is out of range: plan {self.name} reaches from 0 to "
                f"{self.most:.2f}."
            )
        return self._at(float(np.interp(sparsity, 1 - self.active, self.levels)))

    def at_level(self, level: float) -> SparsityPlan:
        """The plan at the method's own nominal level.

        Raises:
            OptionError: it lies outside of the table.
        """
        if not 0 <= level <= float(self.levels[-1]) + 1e-6:
            raise OptionError(
                f"level={show(level)} is out of range: plan {self.name} reaches from 0 to "
                f"{float(self.levels[-1]):.2f}."
            )
        return self._at(float(level))

    def _at(self, level: float) -> SparsityPlan:
        values = {
            piece: [float(np.interp(level, self.levels, column)) for column in table.T]
            for piece, table in self.tables.items()
        }
        layers = tuple(
            {
                piece: self._rule(piece, layer, taus[layer])
                for piece, taus in values.items()
                if taus[layer] > 0
            }
            for layer in range(self.layers)
        )
        centred = [NEURONS in layer for layer in layers]
        means = tuple(
            mean if wanted else None
            for mean, wanted in zip(self.means or [None] * self.layers, centred, strict=True)
        )
        active = float(np.interp(level, self.levels, self.active))
        return SparsityPlan(self.name, self.layout, level, 1 - active, layers, means)

    def _rule(self, piece: str, layer: int, value: float) -> SelectionRule:
        groups = (self.weights, self.centres, self.predictors, self.gains)
        arrays = (None if piece not in group else group[piece][layer] for group in groups)
        return SelectionRule(self.rule, value, *arrays)


def _demand(condition: bool, fault: str) -> None:
    if not condition:
        raise FormatError(f"This sparsity plan is damaged: {fault}; calibrate the model again.")


def _rises(values: Floats) -> bool:
    return bool(np.isfinite(values).all() and (np.diff(values) > 0).all())


def _bounded(table: Floats) -> bool:
    return bool(np.isfinite(table).all() and (table >= 0).all())
