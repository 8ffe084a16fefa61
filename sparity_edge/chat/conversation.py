"""A conversation as data: what was said by whom, and how it is saved and loaded.

It is passed to the model whole at every turn; nothing here knows of models or of the terminal. A
saved conversation is one JSON file, which may come from strangers: it is checked before anything
is replaced.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparity_edge.config.values import show
from sparity_edge.errors import OptionError, library_words
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.settings import from_json, to_json
from sparity_edge.system.atomic import replace_file
from sparity_edge.text.chat_template import plain_variables

FORMAT = "sparity-edge conversation"
VERSION = 1
MAX_FILE_BYTES = 64 << 20


@dataclass
class Conversation:
    """System prompt, messages, and what the model's template is told beside them.

    `messages` alternate between "user" and "assistant".
    """

    system: str | None = None  # None: whatever the model's template does without one
    messages: list[dict[str, str]] = field(default_factory=list)
    template_args: dict[str, Any] = field(default_factory=dict)  # variables of the template

    def turns(self) -> list[dict[str, str]]:
        """All messages as the model is to see them, the system prompt first."""
        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        return head + self.messages

    def say(self, role: str, text: str) -> None:
        """Append a message."""
        self.messages.append({"role": role, "content": text})

    def take_back(self, role: str) -> str | None:
        """Remove the last message if it is of this role, and return its text."""
        if self.messages and self.messages[-1]["role"] == role:
            return self.messages.pop()["content"]
        return None


def save(path: Path, conversation: Conversation, params: SamplingParams, model: str) -> None:
    """Write the conversation to a file, which is complete or untouched.

    Raises:
        OptionError: there is another kind of file, or the file cannot be written.
    """
    _refuse_to_replace(path)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "system": conversation.system,
        "messages": conversation.messages,
        "template_args": conversation.template_args,
        "settings": to_json(params),
    }
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    try:
        replace_file(path, [text.encode("utf-8", "replace")], private=True)
    except OSError as error:
        raise OptionError(f"{path} cannot be written ({error.strerror}).") from None


def load(path: Path) -> tuple[Conversation, SamplingParams, str]:
    """Read a file written by `save`: the conversation, the settings and the model's name.

    Raises:
        OptionError: the file cannot be read or is not a saved conversation.
    """
    content = _read(path)
    try:
        return (
            _check_conversation(content),
            from_json(content.get("settings")),
            str(content["model"]),
        )
    except (KeyError, OptionError) as error:
        reason = library_words(error)  # it may repeat a value of any length
        raise OptionError(f"{path} is damaged ({reason}); nothing was loaded.") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror}).") from None
    if len(data) > MAX_FILE_BYTES:
        raise OptionError(f"{path} is larger than any saved conversation; nothing was loaded.")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise OptionError(f"{path} is not a saved conversation; nothing was loaded.")
    if content.get("version") != VERSION:
        raise OptionError(
            f"{path} is of version {show(content.get('version'))}, and this program reads "
            f"version {VERSION}; nothing was loaded."
        )
    return content


def _check_conversation(content: dict[str, Any]) -> Conversation:
    system, messages = content.get("system"), content.get("messages")
    if system is not None and not isinstance(system, str):
        raise OptionError("the system prompt is not a string")
    if not isinstance(messages, list):
        raise OptionError("messages is not a list")
    conversation = Conversation(None if system is None else plain_text(system))
    conversation.template_args = plain_variables(content.get("template_args"))
    for number, message in enumerate(messages):
        role = "assistant" if number % 2 else "user"
        if not isinstance(message, dict) or message.get("role") != role:
            raise OptionError(f"message {number + 1} is not from the {role}")
        if not isinstance(message.get("content"), str):
            raise OptionError(f"message {number + 1} has no text")
        conversation.say(role, plain_text(message["content"]))
    if len(messages) % 2:
        raise OptionError("the last message has no reply")
    return conversation


def plain_text(text: str) -> str:
    """The text without halves of surrogate pairs, which no UTF-8 output can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _refuse_to_replace(path: Path) -> None:
    """Refuse to write where there is something else than a saved conversation."""
    try:
        path.stat()
    except OSError:
        return  # there is nothing, or writing will tell why it cannot be done
    try:
        _read(path)
    except OptionError:
        message = f"{path} exists and is not a saved conversation; choose another name."
        raise OptionError(message) from None
