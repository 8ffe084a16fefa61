"""Blocks of Anthropic's messages, and its tools: texts, calls and their results.

Sizes and nesting are bounded here; what the model's template can do with tools is no matter of
this module.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from sparity_edge.server.body import Body
from sparity_edge.server.conversations.tool_bodies import MOST_ID, NAME, checked_schema
from sparity_edge.text.tool_calls.call import MOST_DEPTH, shallow


def _checked_input(given: dict[str, Any]) -> dict[str, Any]:
    if not shallow(given):
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
    return given


class CacheMark(Body):
    """Where a client wants a prompt to be cached."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Body):
    """A text."""

    type: Literal["text"]
    text: str
    cache_control: CacheMark | None = None
    citations: None = None


class ToolUseBlock(Body):
    """A call that the assistant made earlier in the conversation."""

    type: Literal["tool_use"]
    id: str = Field(min_length=1, max_length=MOST_ID)
    name: str = Field(pattern=NAME)
    input: Annotated[dict[str, Any], AfterValidator(_checked_input)]
    cache_control: CacheMark | None = None
    caller: None = None
    toolset_name: None = None

    def told(self) -> dict[str, Any]:
        """As the chat template takes it."""
        function = {"name": self.name, "arguments": self.input}
        return {"id": self.id, "type": "function", "function": function}


class ToolResultBlock(Body):
    """What a tool gave back for a call."""

    type: Literal["tool_result"]
    tool_use_id: str = Field(min_length=1, max_length=MOST_ID)
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None
    cache_control: CacheMark | None = None

    @property
    def text(self) -> str:
        """What was given back; templates know no other way to tell an error than to say so."""
        text = text_of(self.content or "")
        return f"Error: {text}" if self.is_error else text


Block = Annotated[TextBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]


class AnthropicTool(Body):
    """A tool that is offered."""

    type: Literal["custom"] | None = None
    name: str = Field(pattern=NAME)
    description: str | None = None
    input_schema: Annotated[dict[str, Any], AfterValidator(checked_schema)]
    strict: bool | None = None
    cache_control: CacheMark | None = None

    def told(self) -> dict[str, Any]:
        """As OpenAI has it, and chat templates."""
        function: dict[str, Any] = {"name": self.name, "parameters": self.input_schema}
        if self.description is not None:
            function["description"] = self.description
        return {"type": "function", "function": function}


class ToolChoice(Body):
    """Whether tools may be called, one of them has to be, or which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


def text_of(content: str | list[TextBlock]) -> str:
    """Blocks as one text, a line break between two.

    Args:
        content: of a message, a system prompt or a result.
    """
    return content if isinstance(content, str) else "\n".join(block.text for block in content)
