"""The methods by name: each turns statistics of a layer, or a whole model, into a plan family.

A new one is a row here; docs/adding-a-method.md lists what else it touches.
"""

from __future__ import annotations

from collections.abc import Sequence

from converters.methods.auto import AUTO
from converters.methods.cats import CATS
from converters.methods.centred import CENTRED
from converters.methods.chess import CHESS
from converters.methods.evopress import EVOPRESS
from converters.methods.family import SERVED_BY, Method, ModelMethod
from converters.methods.larosa import LAROSA
from converters.methods.n_of_m import N_OF_M
from converters.methods.scap import SCAP
from converters.methods.strategies import ABLATION, STRATEGIES
from converters.methods.teal import TEAL
from converters.methods.teal_greedy import TEAL_GREEDY
from converters.methods.wina import WINA
from converters.methods.wisparse import WISPARSE
from sparity_edge.errors import OptionError
from sparity_edge.packed.shards import PLAN_FILE
from sparity_edge.plans.plan import RULES
from sparity_edge.spelling import did_you_mean

AnyMethod = Method | ModelMethod

_ALL: tuple[AnyMethod, ...] = (
    *(AUTO, *CHESS, CATS, *TEAL, TEAL_GREEDY, CENTRED, *STRATEGIES),
    *(*LAROSA, SCAP, WINA, WISPARSE, *N_OF_M),
    EVOPRESS,
)
METHODS = {method.name: method for method in _ALL}


def chosen_methods(wanted: Sequence[str | AnyMethod]) -> list[AnyMethod]:
    """Methods by name, or as they are.

    `all` stands for those that are not slow, `ablation` for what the comparison of the three
    strategies needs.

    Raises:
        OptionError: there is no such method, or one that was given as it is cannot be run.
    """
    chosen: dict[str, AnyMethod] = {}
    for each in wanted:
        if isinstance(each, AnyMethod):
            chosen[each.name] = _checked(each)
        elif each == "all":
            chosen |= {key: method for key, method in METHODS.items() if not method.slow}
        elif each == "ablation":
            chosen |= {key: METHODS[key] for key in ABLATION}
        elif each in METHODS:
            chosen[each] = METHODS[each]
        else:
            known = ", ".join(METHODS)
            hint = did_you_mean(each, (*METHODS, "all", "ablation"))
            raise OptionError(
                f"{each!r} is no calibration method; use all or some of {known}.{hint}"
            )
    return list(chosen.values())


def _checked(method: AnyMethod) -> AnyMethod:
    """A method from elsewhere: faults show before minutes are spent on it, not after."""
    name = method.name
    if not PLAN_FILE.fullmatch(f"plan-{name}.safetensors"):
        fault = "its name is not 1 to 40 of a-z, 0-9 and hyphens"
    elif name in ("all", "ablation") or METHODS.get(name, method) is not method:
        fault = "there is a method of that name already"
    elif isinstance(method, ModelMethod):
        return method
    elif method.layout not in SERVED_BY:
        fault = f"its layout is none of {', '.join(SERVED_BY)}"
    elif method.rule not in RULES:
        fault = f"its rule is none of {', '.join(RULES)}"
    else:
        return method
    raise OptionError(f"Method {name!r} cannot be calibrated: {fault}.")
