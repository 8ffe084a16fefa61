"""The methods by name: each turns statistics of a layer into thresholds over the dial."""

from __future__ import annotations

from collections.abc import Sequence

from converters.methods.cats import CATS
from converters.methods.centred import CENTRED
from converters.methods.chess import CHESS
from converters.methods.family import Method
from converters.methods.strategies import ABLATION, STRATEGIES
from converters.methods.teal import TEAL
from converters.methods.teal_greedy import TEAL_GREEDY
from sparity_edge.errors import OptionError
from sparity_edge.plan import DEFAULT_PLAN

METHODS = {
    method.name: method for method in (*CHESS, CATS, *TEAL, TEAL_GREEDY, CENTRED, *STRATEGIES)
}


def chosen_methods(names: Sequence[str]) -> list[Method]:
    """Methods by name; `all` stands for those that are not slow, `ablation` for what the comparison
    of the three strategies needs, and "auto" is made elsewhere.

    Raises:
        OptionError: there is no such method.
    """
    chosen: dict[str, Method] = {}
    for name in names:
        if name == "all":
            chosen |= {key: method for key, method in METHODS.items() if not method.slow}
        elif name == "ablation":
            chosen |= {key: METHODS[key] for key in ABLATION}
        elif name in METHODS:
            chosen[name] = METHODS[name]
        elif name != DEFAULT_PLAN:
            known = ", ".join([DEFAULT_PLAN, *METHODS])
            raise OptionError(f"{name!r} is no calibration method; use all or some of {known}.")
    return list(chosen.values())
