"""Bodies of Anthropic's requests, each field checked; what is not served is refused by its name.

Marks for Anthropic's prompt cache (`cache_control`) are taken and not looked at: every beginning of
a prompt that was read before is found here. Knows nothing of models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sparity_edge.generation.params import MAX_STOP_LENGTH, MAX_STOP_STRINGS
from sparity_edge.server.body import Body, OurSampling

StopSequence = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class CacheMark(Body):
    """Where a client wants a prompt to be cached."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Body):
    """A part of a message; only texts are read."""

    type: Literal["text"]
    text: str
    cache_control: CacheMark | None = None
    citations: None = None


class Turn(Body):
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    content: str | list[TextBlock]


class NoThinking(Body):
    """The only setting of `thinking` so far."""

    type: Literal["disabled"]


class About(Body):
    """Of whom a request is; not looked at."""

    user_id: str | None = None


class CountBody(Body):
    """POST /v1/messages/count_tokens: a conversation."""

    model: str | None = None
    messages: list[Turn] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    thinking: NoThinking | None = None
    cache_control: CacheMark | None = None

    def turns(self) -> list[dict[str, Any]]:
        """As the chat template takes it; neighbours of one role are one turn, as Anthropic says."""
        found: list[dict[str, Any]] = []
        if self.system:
            found.append({"role": "system", "content": _text(self.system)})
        for message in self.messages:
            text = _text(message.content)
            if found and found[-1]["role"] == message.role:
                found[-1]["content"] += f"\n{text}"
            else:
                found.append({"role": message.role, "content": text})
        return found


class MessagesBody(CountBody, OurSampling):
    """POST /v1/messages."""

    max_tokens: int
    stop_sequences: list[StopSequence] | None = Field(default=None, max_length=MAX_STOP_STRINGS)
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    metadata: About | None = None


def _text(content: str | list[TextBlock]) -> str:
    """Blocks as one text, a line break between two."""
    return content if isinstance(content, str) else "\n".join(block.text for block in content)
