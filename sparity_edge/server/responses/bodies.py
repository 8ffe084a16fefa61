"""Bodies of /v1/responses, each field checked; what is not served is refused by its name.

Fields that change nothing of an answer (user, metadata, prompt_cache_key) are taken and not looked
at. Knows nothing of models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sparity_edge.generation.params import MAX_TOP_LOGPROBS
from sparity_edge.server.bodies import JsonObject, PlainText
from sparity_edge.server.body import Body, OurSampling


class InputPart(Body):
    """A part of a message: a text of the user, or of an answer as it was given."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputItem(Body):
    """A message; the only kind of item that is read."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputPart]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    def turn(self) -> dict[str, Any]:
        """As the chat template takes it."""
        parts = self.content if isinstance(self.content, list) else None
        text = self.content if parts is None else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class SchemaFormat(Body):
    """JSON that is valid by a schema; `strict` or not."""

    type: Literal["json_schema"]
    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


Format = Annotated[PlainText | JsonObject | SchemaFormat, Field(discriminator="type")]


class TextSettings(Body):
    """How the text is written."""

    format: Format | None = None
    verbosity: None = None


class NoReasoning(Body):
    """The only setting of `reasoning` so far."""

    effort: Literal["none"] | None = None
    summary: None = None


class StreamSettings(Body):
    """What else is streamed."""

    include_obfuscation: bool = False


class ResponsesBody(OurSampling):
    """POST /v1/responses."""

    model: str | None = None
    input: str | list[InputItem] = Field(min_length=1)
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=1 << 31)
    temperature: float | None = None
    top_p: float | None = None
    stream: bool = False
    stream_options: StreamSettings | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    text: TextSettings | None = None
    reasoning: NoReasoning | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: None = None
    prompt: None = None
    tools: list[Any] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None  # of no tools; not looked at, nor are the next ones
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: Literal["auto", "default"] | None = None
