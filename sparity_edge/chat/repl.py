"""The REPL of the chat: read a line, reply to it or carry a command out, until the user leaves.

It joins line input, commands and the session; an error ends what was begun and not the session.
"""

from __future__ import annotations

from sparity_edge.chat.commands import Leave, execute, is_command
from sparity_edge.chat.line_input import LineInput
from sparity_edge.chat.session import ChatSession
from sparity_edge.errors import SparityError


def run(session: ChatSession, line_input: LineInput) -> None:
    """Read and reply until the user leaves.

    Args:
        session: the conversation.
        line_input: gives one message at a time.
    """
    interrupts = 0
    while True:
        try:
            text = line_input.read()
            interrupts = 0
            if is_command(text):
                execute(session, text)
            elif text.strip():
                session.ask(text)
        except Leave:
            return
        except EOFError:
            session.screen.note("")
            return
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts > 1:
                session.screen.note("Ctrl-D or /exit leaves.")
        except SparityError as error:
            session.screen.note(str(error))
