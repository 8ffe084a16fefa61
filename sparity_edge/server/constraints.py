"""What a request says that its answers must follow: a response format, a regex or a grammar.

Knows OpenAI's names of them and ours, and nothing of how they are followed.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparity_edge.errors import OptionError
from sparity_edge.generation.constraint.constraint import Constraint
from sparity_edge.generation.constraint.grammars import Kind
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.server.bodies import JsonObject, JsonSchema, Sampled

Wanted = tuple[str, Kind, object]


def constraint_of(loaded: LoadedModel, body: Sampled) -> Constraint | None:
    """What the answers to a request must follow; None: nothing.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.

    Raises:
        OptionError: it cannot be followed, or there is more than one.
    """
    wanted: list[Wanted] = []
    if isinstance(body.response_format, JsonObject):
        wanted.append(("response_format", "json_object", None))
    if isinstance(body.response_format, JsonSchema):
        schema = body.response_format.json_schema.schema_
        wanted.append(("response_format.json_schema.schema", "json_schema", schema))
    if body.regex is not None:
        wanted.append(("regex", "regex", body.regex))
    if body.grammar is not None:
        wanted.append(("grammar", "grammar", body.grammar))
    return the_one(loaded, wanted)


def the_one(loaded: LoadedModel, wanted: Sequence[Wanted]) -> Constraint | None:
    """The constraint that is wanted; None: there is none.

    Args:
        loaded: the model.
        wanted: of each the field that asks for it, its kind, and what it is made of.

    Raises:
        OptionError: it cannot be followed, or there is more than one.
    """
    if len(wanted) > 1:
        names = " and ".join(name for name, _, _ in wanted)
        raise OptionError(f"{names} were given together; give one of them.")
    for name, kind, content in wanted:
        return loaded.constraints.of(kind, content, name)
    return None
