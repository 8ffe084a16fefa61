"""Bodies of OpenAI's requests, each field checked; what is not served is refused by its name.

Fields that change nothing of an answer (user, metadata) are taken and not looked at. Knows nothing
of models: `calls` makes prompts and parameters of these.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sparity_edge.server.body import Body, Dialled
from sparity_edge.server.conversations.tool_bodies import (
    MOST_CALLS,
    MOST_ID,
    MOST_TOOLS,
    MadeCall,
    Tool,
    ToolChoice,
)

MOST_CHOICES = 8


class TextPart(Body):
    """A part of a message; only texts are read."""

    type: Literal["text"]
    text: str


class Message(Body):
    """One turn of a conversation."""

    role: str
    content: str | list[TextPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[MadeCall] | None = Field(default=None, max_length=MOST_CALLS)
    tool_call_id: str | None = Field(default=None, max_length=MOST_ID)
    refusal: None = None  # clients send answers back with all of their fields
    function_call: None = None
    audio: None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)

    def turn(self) -> dict[str, Any]:
        """As the chat template takes it."""
        parts = self.content if isinstance(self.content, list) else None
        text = "".join(part.text for part in parts) if parts is not None else self.content or ""
        turn: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": text,
        }
        if self.reasoning_content:
            turn["reasoning"] = self.reasoning_content
        if self.tool_calls:
            turn["tool_calls"] = [each.told() for each in self.tool_calls]
        for key, value in (("name", self.name), ("tool_call_id", self.tool_call_id)):
            if value is not None and self.role == "tool":
                turn[key] = value
        return turn


class StreamOptions(Body):
    """What else is streamed."""

    include_usage: bool = False
    include_obfuscation: bool = False


class PlainText(Body):
    """Any text."""

    type: Literal["text"]


class JsonObject(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Body):
    """A JSON schema; `strict` or not, answers are always valid by it."""

    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class JsonSchema(Body):
    """JSON that is valid by a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[PlainText | JsonObject | JsonSchema, Field(discriminator="type")]


class Sampled(Dialled):
    """What completions of a text and of a conversation have in common."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=MOST_CHOICES)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    logit_bias: dict[str, float] | None = None
    ignore_eos: bool = False
    response_format: ResponseFormat | None = None
    regex: str | None = None
    grammar: str | None = None
    user: str | None = None  # not looked at; so are the next four
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default"] | None = None


class ChatBody(Sampled):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_format: Literal["none", "auto", "deepseek"] | None = None
    include_reasoning: bool | None = None
    store: Literal[False] | None = None
    modalities: list[Literal["text"]] | None = None


class TextBody(Sampled):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = None
    echo: Literal[False] = False
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None


class TokenizeBody(Body):
    """POST /tokenize: a text, or a conversation by its template."""

    content: str | None = None
    messages: list[Message] | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MOST_TOOLS)
    add_special: bool = False


class DetokenizeBody(Body):
    """POST /detokenize."""

    tokens: list[int]
