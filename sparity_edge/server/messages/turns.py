"""Conversations in Anthropic's shape as chat templates take them: turns, and the tools on offer.

Neighbours of one role are one turn, as Anthropic says. Results of tools, which are blocks of the
user's messages there, are turns of their own.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.errors import OptionError
from sparity_edge.server.conversations.offer import Choice, Offer
from sparity_edge.server.messages.blocks import (
    Block,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    text_of,
)
from sparity_edge.server.messages.bodies import AnthropicMessage, CountBody

CHOICES: dict[str, Choice] = {
    "auto": "auto",
    "any": "required",
    "tool": "required",
    "none": "none",
}


def turns_of(body: CountBody) -> list[dict[str, Any]]:
    """The turns of a conversation.

    Args:
        body: of a request, its fields checked one by one.

    Raises:
        OptionError: a block stands where it cannot be, or an answer is begun for the model.
    """
    if body.messages[-1].role == "assistant":
        last = len(body.messages) - 1
        raise OptionError(
            f"messages.{last}.role='assistant' is the last message, and beginnings of answers are "
            "not gone on with here; end with a message of the user."
        )
    found: list[dict[str, Any]] = []
    if body.system:
        found.append({"role": "system", "content": text_of(body.system)})
    names: dict[str, str] = {}  # of tools, by the ids of their calls
    for number, message in enumerate(body.messages):
        for turn in _turns(message, number, names):
            if found and found[-1]["role"] == turn["role"] != "tool":
                _join(found[-1], turn)
            else:
                found.append(turn)
    return found


def offer_of(body: CountBody) -> Offer:
    """The tools that a request lets the model call.

    Args:
        body: of the request.

    Raises:
        OptionError: the choice names no tool, or names one without saying that it has to be called.
    """
    tools, choice = [each.told() for each in body.tools or ()], body.tool_choice
    if choice is None:
        return Offer(tools)
    if (choice.name is None) == (choice.type == "tool"):
        raise OptionError("tool_choice.name goes with tool_choice.type='tool', and only with it.")
    parallel = not choice.disable_parallel_tool_use
    return Offer(tools, CHOICES[choice.type], choice.name, parallel)


def _turns(message: AnthropicMessage, number: int, names: dict[str, str]) -> list[dict[str, Any]]:
    blocks: list[Block]
    if isinstance(message.content, str):
        blocks = [TextBlock(type="text", text=message.content)]
    else:
        blocks = message.content
    foreign = ToolUseBlock if message.role == "user" else ToolResultBlock
    for index, block in enumerate(blocks):
        if isinstance(block, foreign):
            raise OptionError(
                f"messages.{number}.content.{index}.type={block.type!r} cannot be in a message of "
                f"role {message.role!r}; leave it out."
            )
    calls = [each for each in blocks if isinstance(each, ToolUseBlock)]
    names |= {each.id: each.name for each in calls}
    results = [each for each in blocks if isinstance(each, ToolResultBlock)]
    found: list[dict[str, Any]] = [_result(each, names) for each in results]
    texts = [each for each in blocks if isinstance(each, TextBlock)]
    if texts or not results:
        turn: dict[str, Any] = {"role": message.role, "content": text_of(texts)}
        if calls:
            turn["tool_calls"] = [each.told() for each in calls]
        found.append(turn)
    return found


def _result(block: ToolResultBlock, names: dict[str, str]) -> dict[str, Any]:
    turn = {"role": "tool", "content": block.text, "tool_call_id": block.tool_use_id}
    if block.tool_use_id in names:
        turn["name"] = names[block.tool_use_id]
    return turn


def _join(turn: dict[str, Any], more: dict[str, Any]) -> None:
    """Append a turn to one of its role."""
    turn["content"] = "\n".join(each["content"] for each in (turn, more) if each["content"])
    calls = [*turn.get("tool_calls", ()), *more.get("tool_calls", ())]
    if calls:
        turn["tool_calls"] = calls
