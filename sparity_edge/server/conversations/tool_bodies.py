"""Bodies of tools and their calls, as OpenAI's chats have them; what they hold comes from anywhere.

Sizes and nesting are bounded here; what the model's template can do with tools is no matter of
this module.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from sparity_edge.server.body import Body
from sparity_edge.text.tool_calls.call import MOST_DEPTH, loads, shallow

MOST_TOOLS = 128
MOST_CALLS = 128  # in one message
NAME = r"^[a-zA-Z0-9_-]{1,64}$"
MOST_ID = 256  # characters


def checked_schema(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    if not shallow(schema):
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
    if schema and schema.get("type", "object") != "object":
        raise ValueError("parameters of a function are of type object")
    return schema


def _checked_arguments(text: str) -> str:
    if text.strip():
        value = loads(text)
        if not isinstance(value, dict) or not shallow(value):
            raise ValueError(f"it is no JSON object nested at most {MOST_DEPTH} deep")
    return text


class Function(Body):
    """A function that the model may call."""

    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: Annotated[dict[str, Any] | None, AfterValidator(checked_schema)] = None
    strict: bool | None = None


class Tool(Body):
    """A tool that is offered."""

    type: Literal["function"]
    function: Function

    def told(self) -> dict[str, Any]:
        """As the chat template takes it."""
        function = self.function.model_dump(exclude={"strict"}, exclude_none=True)
        function.setdefault("parameters", {"type": "object", "properties": {}})
        return {"type": "function", "function": function}


class ChosenFunction(Body):
    """The name of a function that has to be called."""

    name: str


class NamedChoice(Body):
    """A tool that has to be called."""

    type: Literal["function"]
    function: ChosenFunction


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


class CalledFunction(Body):
    """A function as it was called."""

    name: str = Field(pattern=NAME)
    arguments: Annotated[str, AfterValidator(_checked_arguments)]


class MadeCall(Body):
    """A call that the assistant made earlier in the conversation."""

    id: str = Field(min_length=1, max_length=MOST_ID)
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # clients leave it there that add a stream up

    def told(self) -> dict[str, Any]:
        """As the chat template takes it, but that some take arguments as text."""
        text = self.function.arguments
        arguments = loads(text) if text.strip() else {}
        function = {"name": self.function.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}
