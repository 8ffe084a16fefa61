"""What a request for a response asks of the model: parameters, and a sequence to decode.

Every wrong value is an OptionError that names the field. Knows nothing of HTTP.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.errors import OptionError
from sparity_edge.generation.constraint.constraint import Constraint
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.sequence import DecodingSequence, sequence_of
from sparity_edge.server.bodies import JsonObject
from sparity_edge.server.calls import params_of
from sparity_edge.server.constraints import Wanted, made, the_one
from sparity_edge.server.errors.shapes import clipped
from sparity_edge.server.responses.bodies import ResponsesBody, SchemaFormat

STATELESS = "nothing is stored here; leave it out, and send the whole conversation as input"


def response_params(loaded: LoadedModel, body: ResponsesBody) -> SamplingParams:
    """The sampling parameters that a request asks for.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.

    Raises:
        OptionError: a field cannot be honoured.
    """
    if body.store:
        raise OptionError(f"store=true is refused, for {STATELESS}.")
    if body.previous_response_id is not None:
        asked = clipped(body.previous_response_id)
        raise OptionError(f"previous_response_id={asked!r} is refused, for {STATELESS}.")
    if body.tools:
        raise OptionError(f"tools={clipped(str(body.tools))} is not served here; leave it out.")
    if body.top_logprobs and not body.include:
        raise OptionError(
            f"top_logprobs={body.top_logprobs} needs include=['message.output_text.logprobs']; "
            "set it, or leave top_logprobs out."
        )
    more: dict[str, Any] = {
        "logprobs": bool(body.include),
        "top_logprobs": body.top_logprobs or 0,
    }
    if body.max_output_tokens is not None:
        more["max_tokens"] = body.max_output_tokens
    return params_of(loaded, body, more)


def response_sequence(
    loaded: LoadedModel, body: ResponsesBody, params: SamplingParams
) -> DecodingSequence:
    """The sequence that a request asks for.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.
        params: as `response_params` gives them.

    Raises:
        OptionError, ContextError, TemplateError: the conversation cannot be read.
    """
    turns = [] if body.instructions is None else [_turn("system", body.instructions)]
    if isinstance(body.input, str):
        turns.append(_turn("user", body.input))
    else:
        turns += [item.turn() for item in body.input]
    return sequence_of(loaded, turns, params, constraint=_constraint(loaded, body))


def _constraint(loaded: LoadedModel, body: ResponsesBody) -> Constraint | None:
    asked = None if body.text is None else body.text.format
    wanted: list[Wanted] = []
    if isinstance(asked, JsonObject):
        wanted.append(Wanted("text.format", "json_object", None))
    if isinstance(asked, SchemaFormat):
        wanted.append(Wanted("text.format.schema", "json_schema", asked.schema_))
    return made(loaded, the_one(wanted))


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}
