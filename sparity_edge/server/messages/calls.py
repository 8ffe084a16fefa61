"""What a request in Anthropic's shape asks of the model: token ids, and a sequence to decode.

Every wrong value is an OptionError that names the field. Knows nothing of HTTP.
"""

from __future__ import annotations

from sparity_edge.errors import OptionError
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.generation.sequence import DecodingSequence, sequence_of
from sparity_edge.server.calls import params_of
from sparity_edge.server.messages.bodies import CountBody, MessagesBody


def prompt_ids(loaded: LoadedModel, body: CountBody) -> list[int]:
    """Token ids of a conversation, up to where the answer begins.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.

    Raises:
        OptionError, TemplateError: the conversation cannot be read.
    """
    if body.messages[-1].role == "assistant":
        last = len(body.messages) - 1
        raise OptionError(
            f"messages.{last}.role='assistant' is the last message, and beginnings of answers are "
            "not gone on with here; end with a message of the user."
        )
    return loaded.encode(body.turns())


def message_sequence(loaded: LoadedModel, body: MessagesBody) -> DecodingSequence:
    """The sequence that a conversation asks for.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.

    Raises:
        OptionError, ContextError, TemplateError: it cannot be honoured.
    """
    params = params_of(loaded, body, {"stop": tuple(body.stop_sequences or ())})
    return sequence_of(loaded, prompt_ids(loaded, body), params)
