"""What a request says that its answers must follow: a response format, a regex or a grammar.

Knows OpenAI's names of them and ours, and nothing of how they are followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sparity_edge.errors import OptionError
from sparity_edge.generation.constraint.constraint import Constraint
from sparity_edge.generation.constraint.grammars import Kind
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.server.bodies import JsonObject, JsonSchema, Sampled


class Wanted(NamedTuple):
    """What answers must follow."""

    field: str  # of the request
    kind: Kind
    content: object


def constraint_of(loaded: LoadedModel, body: Sampled) -> Constraint | None:
    """What the answers to a request must follow, for one model; None: nothing.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.

    Raises:
        OptionError: it cannot be followed, or there is more than one.
    """
    return made(loaded, wanted_of(body))


def made(loaded: LoadedModel, wanted: Wanted | None) -> Constraint | None:
    """The constraint that is wanted; None: there is none.

    Args:
        loaded: the model.
        wanted: what answers must follow.

    Raises:
        OptionError: it cannot be followed.
    """
    if wanted is None:
        return None
    return loaded.constraints.of(wanted.kind, wanted.content, wanted.field)


def wanted_of(body: Sampled) -> Wanted | None:
    """What a request says that its answers must follow; None: nothing.

    Args:
        body: of the request, its fields checked one by one.

    Raises:
        OptionError: there is more than one.
    """
    wanted: list[Wanted] = []
    if isinstance(body.response_format, JsonObject):
        wanted.append(Wanted("response_format", "json_object", None))
    if isinstance(body.response_format, JsonSchema):
        schema = body.response_format.json_schema.schema_
        wanted.append(Wanted("response_format.json_schema.schema", "json_schema", schema))
    if body.regex is not None:
        wanted.append(Wanted("regex", "regex", body.regex))
    if body.grammar is not None:
        wanted.append(Wanted("grammar", "grammar", body.grammar))
    return the_one(wanted)


def the_one(wanted: Sequence[Wanted]) -> Wanted | None:
    """The only one of what is wanted; None: there is none.

    Args:
        wanted: of each the field that asks for it, its kind, and what it is made of.

    Raises:
        OptionError: there is more than one.
    """
    if len(wanted) > 1:
        names = " and ".join(each.field for each in wanted)
        raise OptionError(f"{names} were given together; give one of them.")
    return wanted[0] if wanted else None
