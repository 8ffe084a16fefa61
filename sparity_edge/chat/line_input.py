"""How a message is typed: one line, several lines, a pasted block.

With prompt_toolkit where it can start: editing, history, paste, completion of commands. Else with
plain `input`. Nothing here knows what is done with the message.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sparity_edge.chat.conversation import plain_text
from sparity_edge.terminal.screen import is_dumb

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT = "> "
CONTINUATION = ". "
QUOTES = '"""'


class LineInput(Protocol):
    """Asks for one message."""

    def read(self) -> str:
        """The message; raises KeyboardInterrupt for Ctrl-C and EOFError for Ctrl-D."""


def open_line_input(history: Path | None, commands: Sequence[str]) -> LineInput:
    """The best way to ask that works on this terminal.

    Args:
        history: file that keeps the messages between sessions; None: they are not kept.
        commands: what is completed at the beginning of a line.
    """
    if is_dumb():
        return PlainInput()
    try:
        return EditedInput(history, commands)
    except Exception as error:  # whatever a strange terminal makes prompt_toolkit raise
        print(f"Line editing is not available ({type(error).__name__}).", file=sys.stderr)
        return PlainInput()


def confirm(question: str) -> bool:
    """Whether the user at the terminal says yes; everything else is a no, Ctrl-C and Ctrl-D too."""
    print(f"{question} [y/N] ", end="", flush=True)  # where stderr is a file, `input` asks there
    try:
        answer = input()
    except (EOFError, KeyboardInterrupt):
        print()  # what comes next does not belong behind the question
        return False
    return answer.strip().lower() in ("y", "yes")


def is_open(text: str) -> bool:
    '''Whether a message has begun with `"""` and not ended with it.'''
    text = text.strip()
    return text.startswith(QUOTES) and (len(text) < 2 * len(QUOTES) or not text.endswith(QUOTES))


def unquote(text: str) -> str:
    '''The message without the `"""` around it and without the line ends around it.'''
    stripped = text.strip()
    if stripped.startswith(QUOTES) and not is_open(stripped):
        text = stripped[len(QUOTES) : -len(QUOTES)]
    return plain_text(text).strip("\r\n")


class PlainInput:
    """Asks with `input`; a backslash at the end of a line continues the message."""

    def read(self) -> str:
        """See `LineInput`."""
        try:
            text = input(PROMPT)
            while is_open(text) or text.endswith("\\"):
                text = text if is_open(text) else text[:-1]
                text += "\n" + input(CONTINUATION)
        except KeyboardInterrupt:
            print()  # the next prompt does not belong behind the ^C
            raise
        return unquote(text)


class EditedInput:
    """Asks with prompt_toolkit.

    Enter sends; Alt-Enter, a backslash before Enter or an open `\"""` make a new line; a pasted
    text is inserted whole.
    """

    def __init__(self, history: Path | None, commands: Sequence[str]) -> None:
        from prompt_toolkit import PromptSession

        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            history=_history(history),
            completer=_completer(commands),
            complete_while_typing=True,
            enable_suspend=True,  # Ctrl-Z, as in every other program
            key_bindings=_keys(),
        )

    def read(self) -> str:
        """See `LineInput`."""
        return unquote(self._session.prompt())


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _completer(commands: Sequence[str]) -> Any:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

    class CommandCompleter(Completer):
        def get_completions(
            self,
            document: Document,
            complete_event: CompleteEvent,  # noqa: ARG002
        ) -> Iterable[Completion]:
            typed = document.text_before_cursor
            if typed.startswith("/"):
                for command in commands:
                    if command.startswith(typed) and command != typed:
                        yield Completion(command, start_position=-len(typed))

    return CommandCompleter()


def _history(path: Path | None) -> History:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # what one says to a model is private
            with path.open("r+b"):
                return FileHistory(str(path))
        except OSError:  # a read-only home: the session has its history, the next one has not
            pass
    return InMemoryHistory()
