"""What a request in Anthropic's shape asks of the model: token ids, and a sequence to decode.

Every wrong value is an OptionError that names the field. Knows nothing of HTTP.
"""

from __future__ import annotations

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
    sequence = sequence_of(
        loaded,
        talk.ids,
        params,
        constraint=talk.constraint,
        shown=talk.shown,
        ends=talk.ends() if talk.ends else None,
    )
    return sequence, talk.reader()
