"""Bodies of Anthropic's requests, each field checked; what is not served is refused by its name.

Marks for Anthropic's prompt cache (`cache_control`) are taken and not looked at: every beginning of
a prompt that was read before is found here. Knows nothing of models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sparity_edge.generation.params import MAX_STOP_LENGTH, MAX_STOP_STRINGS
from sparity_edge.server.body import Body, OurSampling
from sparity_edge.server.conversations.tool_bodies import MOST_TOOLS
from sparity_edge.server.messages.blocks import (
    AnthropicTool,
    Block,
    CacheMark,
    TextBlock,
    ToolChoice,
)

StopSequence = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class AnthropicMessage(Body):
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    content: str | list[Block]


class NoThinking(Body):
    """The only setting of `thinking` so far."""

    type: Literal["disabled"]


class SchemaFormat(Body):
    """JSON that is valid by a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputSettings(Body):
    """How the text is written."""

    format: SchemaFormat | None = None
    effort: None = None


class About(Body):
    """Of whom a request is; not looked at."""

    user_id: str | None = None


class CountBody(Body):
    """POST /v1/messages/count_tokens: a conversation."""

    model: str | None = None
    messages: list[AnthropicMessage] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[AnthropicTool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: ToolChoice | None = None
    thinking: NoThinking | None = None
    output_config: OutputSettings | None = None
    cache_control: CacheMark | None = None


class MessagesBody(CountBody, OurSampling):
    """POST /v1/messages."""

    max_tokens: int
    stop_sequences: list[StopSequence] | None = Field(default=None, max_length=MAX_STOP_STRINGS)
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    metadata: About | None = None
