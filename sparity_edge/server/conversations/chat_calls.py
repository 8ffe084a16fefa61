"""What a chat in OpenAI's shape asks of the model: sequences, and readers of their answers.

Every wrong value is an OptionError that names the field. Knows OpenAI's names of parameters and
ours; nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparity_edge.errors import OptionError
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.generation.sequence import DecodingSequence, sequence_of
from sparity_edge.server.bodies import ChatBody, Message
from sparity_edge.server.calls import params_of, seeded
from sparity_edge.server.constraints import wanted_of
from sparity_edge.server.conversations.conversation import conversation
from sparity_edge.server.conversations.offer import Choice, Offer
from sparity_edge.server.conversations.tool_bodies import NamedChoice
from sparity_edge.text.answer_parts import AnswerReader


def chat_sequences(
    loaded: LoadedModel, body: ChatBody
) -> tuple[list[DecodingSequence], list[AnswerReader]]:
    """The sequences that a conversation asks for, `n` of them, and a reader for each.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.

    Raises:
        OptionError, ContextError, TemplateError: it cannot be honoured.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise OptionError("top_logprobs needs logprobs=true; set it, or leave top_logprobs out.")
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise OptionError("max_tokens and max_completion_tokens mean the same; give one of them.")
    more = {"logprobs": bool(body.logprobs), "top_logprobs": body.top_logprobs or 0}
    if body.max_completion_tokens is not None:
        more["max_tokens"] = body.max_completion_tokens
    params = params_of(loaded, body, more)
    talk = conversation(
        loaded,
        turns_of(body.messages),
        body.chat_template_kwargs,
        _offer(body),
        followed=wanted_of(body),
        split=_split(body),
    )
    sequences = [
        sequence_of(
            loaded,
            talk.ids,
            each,
            constraint=talk.constraint,
            shown=talk.shown,
            ends=talk.ends() if talk.ends else None,
        )
        for each in seeded(params, body.n)
    ]
    return sequences, [talk.reader() for _ in sequences]


def turns_of(messages: Sequence[Message]) -> list[dict[str, object]]:
    """Messages as the template takes them; results of tools tell the name of the tool.

    Args:
        messages: of a request.

    Raises:
        OptionError: a call or a result does not belong where it stands.
    """
    names: dict[str, str] = {}
    turns = []
    for number, message in enumerate(messages):
        turn = message.turn()
        if message.tool_calls and message.role != "assistant":
            raise OptionError(f"messages.{number}.tool_calls are of the assistant only.")
        names |= {each.id: each.function.name for each in message.tool_calls or ()}
        if message.role == "tool":
            if message.tool_call_id is None:
                raise OptionError(f"messages.{number}.tool_call_id is missing; add it.")
            if message.tool_call_id in names:
                turn.setdefault("name", names[message.tool_call_id])
        turns.append(turn)
    return turns


def _offer(body: ChatBody) -> Offer:
    tools = [each.told() for each in body.tools or ()]
    chosen = body.tool_choice or "auto"
    name = chosen.function.name if isinstance(chosen, NamedChoice) else None
    choice: Choice = "required" if isinstance(chosen, NamedChoice) else chosen
    parallel = body.parallel_tool_calls is not False
    strict = any(each.function.strict for each in body.tools or ())
    return Offer(tools, choice, name, parallel, strict)


def _split(body: ChatBody) -> bool:
    if body.reasoning_format is not None:
        return body.reasoning_format != "none"
    return body.include_reasoning is not None
