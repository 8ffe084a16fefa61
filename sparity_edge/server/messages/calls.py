"""What a request in Anthropic's shape asks of the model: token ids, and a sequence to decode.

Every wrong value is an OptionError that names the field. Knows nothing of HTTP.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.errors import OptionError
from sparity_edge.generation.constraint.constraint import Constraint
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.generation.sequence import DecodingSequence, sequence_of
from sparity_edge.server.calls import params_of
from sparity_edge.server.conversations.conversation import Conversation, conversation
from sparity_edge.server.messages.bodies import CountBody, MessagesBody
from sparity_edge.server.messages.turns import offer_of, turns_of
from sparity_edge.text.answer_parts import AnswerReader


def talk_of(loaded: LoadedModel, body: CountBody) -> Conversation:
    """The conversation of a request, up to where the answer begins.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.

    Raises:
        OptionError, TemplateError: the conversation cannot be read.
    """
    return conversation(loaded, turns_of(body), None, offer_of(body))


def message_sequence(
    loaded: LoadedModel, body: MessagesBody
) -> tuple[DecodingSequence, AnswerReader]:
    """The sequence that a conversation asks for, and a reader of its answer.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.

    Raises:
        OptionError, ContextError, TemplateError: it cannot be honoured.
    """
    params = params_of(loaded, body, {"stop": tuple(body.stop_sequences or ())})
    talk = talk_of(loaded, body)
    if _schema(body) is not None and offer_of(body).open:
        raise OptionError(
            "tools and output_config.format do not go together here: a call would not follow the "
            "schema; leave one of them out."
        )
    sequence = sequence_of(
        loaded,
        talk.ids,
        params,
        constraint=_constraint(loaded, body) or talk.constraint,
        shown=talk.shown,
        ends=talk.ends() if talk.ends else None,
    )
    return sequence, talk.reader()


def _constraint(loaded: LoadedModel, body: MessagesBody) -> Constraint | None:
    schema = _schema(body)
    if schema is None:
        return None
    return loaded.constraints.of("json_schema", schema, "output_config.format.schema")


def _schema(body: MessagesBody) -> dict[str, Any] | None:
    asked = None if body.output_config is None else body.output_config.format
    return None if asked is None else asked.schema_
