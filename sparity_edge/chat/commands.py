"""The commands of a chat, from /help to /exit.

Each is a function of the session and the rest of the line; its docstring is its line in /help.
Knows nothing of how a message is typed.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.chat import conversation as store
from sparity_edge.chat.conversation import Conversation
from sparity_edge.chat.sparsity import follow, in_force, on_offer, understood
from sparity_edge.errors import OptionError
from sparity_edge.generation.settings import change_setting, list_settings, shown
from sparity_edge.generation.suggested import FILE, suggestions
from sparity_edge.spelling import did_you_mean
from sparity_edge.text.chat_template import plain_variables
from sparity_edge.text.template_args import read_pair, shown_variables

if TYPE_CHECKING:
    from sparity_edge.chat.session import ChatSession, Totals

# "/etc/passwd says ..." is a message, and so is everything after a leading blank.
_COMMAND = re.compile(r"/[A-Za-z?]*(?=\s|$)")


TEMPLATE = "template"  # beside the sampling parameters that /set knows
SHOWN_LINES = 12  # of a message that was said in a conversation that is loaded


class Leave(Exception):  # noqa: N818  # not an error
    """The user wants to leave the session."""


def is_command(text: str) -> bool:
    """Whether a message is a command rather than something to say."""
    return _COMMAND.match(text) is not None


def execute(session: ChatSession, text: str) -> None:
    """Carry a command out.

    Raises:
        OptionError: there is no such command, or it cannot be done.
        Leave: the session is over.
    """
    name, _, rest = text.partition(" ") if "\n" not in text else _split_at_blank(text)
    command = COMMANDS.get(ALIASES.get(name.lower(), name.lower()))
    if command is None:
        hint = did_you_mean(name, [*COMMANDS, *ALIASES])
        raise OptionError(
            f"There is no command {name}; /help lists them.{hint} "
            f"A message that begins with a slash needs a blank before it."
        )
    command(session, rest.strip())


def _split_at_blank(text: str) -> tuple[str, str, str]:
    name, rest = re.split(r"\s", text, maxsplit=1)
    return name, " ", rest


def _help(session: ChatSession, _: str) -> None:
    """/help -- this list."""
    for command in COMMANDS.values():
        session.screen.note(textwrap.dedent(command.__doc__ or ""))
    session.screen.note(KEYS)


def _clear(session: ChatSession, _: str) -> None:
    """/clear -- begin a new conversation; the system prompt and the settings stay."""
    session.conversation.messages.clear()
    session.totals.context_tokens = 0
    session.screen.note("A new conversation begins.")


def _regen(session: ChatSession, _: str) -> None:
    """/regen -- reply to the last message once more."""
    if not session.regenerate():
        raise OptionError("There is no reply to make again yet.")


def _system(session: ChatSession, text: str) -> None:
    """/system [TEXT] -- show or replace the system prompt; "/system -" removes it."""
    talk = session.conversation
    if text:
        talk.system = None if text == "-" else store.plain_text(text)
        after = " from the next reply on" if talk.messages else ""
        session.screen.note(f"The system prompt is {'removed' if text == '-' else 'set'}{after}.")
    elif talk.system is None:
        session.screen.note("No system prompt is set; the model's template may have its own.")
    else:
        session.screen.note(talk.system or "The system prompt is empty.")


def _set(session: ChatSession, text: str) -> None:
    """/set [NAME VALUE] -- list or change settings; /set template NAME=VALUE is the template's."""
    name, _, value = text.partition(" ")
    if not name:
        for line in list_settings(session.params):
            session.screen.note(line)
        session.screen.note(_template_line(session))
        if names := suggestions(session.generator.default_params):
            session.screen.note(f"The model's {FILE} has its own defaults: {', '.join(names)}.")
    elif not value.strip():
        raise OptionError(f"/set {name} needs a value; /set alone lists the present ones.")
    elif name == TEMPLATE:
        _set_template(session, value.strip())
    else:
        session.params = change_setting(session.params, name, value.strip())
        setting = name.replace("-", "_")
        session.screen.note(f"{setting} is {shown(getattr(session.params, setting))} from now on.")


def _set_template(session: ChatSession, text: str) -> None:
    """Set a variable of the chat template, NAME=VALUE; "none" forgets all of them."""
    changed: dict[str, Any] = {}
    if text.lower() != "none":
        changed = {**session.conversation.template_args, **dict([read_pair(text)])}
    session.conversation.template_args = plain_variables(changed)
    session.screen.note(f"template is {_variables(session)} from now on.")


def _template_line(session: ChatSession) -> str:
    return f"{TEMPLATE:<19} {_variables(session):<10} NAME=VALUE for the model's chat template"


def _variables(session: ChatSession) -> str:
    return shown_variables(session.conversation.template_args) or "none"


def _sparsity(session: ChatSession, text: str) -> None:
    """/sparsity [SHARE] [PLAN] [force] -- show or set the share of the weights to skip, or off."""
    if text:
        follow(session, *understood(text, session.generator.sparsity))
    session.screen.note(in_force(session))
    if not text:
        session.screen.note(on_offer(session))


def _stats(session: ChatSession, _: str) -> None:
    """/stats -- tokens, speed and memory of this session."""
    totals, generator = session.totals, session.generator
    speed = totals.generated_tokens / totals.decode_seconds if totals.decode_seconds else 0.0
    info = generator.info()
    cache_bytes = int(info.get("cache_bytes_per_token", 0)) * totals.context_tokens
    lines = (
        f"replies          {totals.replies}",
        f"tokens generated {totals.generated_tokens}, {speed:.1f} tok/s",
        f"weights read     {totals.active_weight_fraction:.1%}{_densities(totals.densities)}",
        f"speculation      {_speculated(totals)}",
        f"prefill          {totals.prefill_seconds:.2f} s",
        f"context in use   {totals.context_tokens} of {generator.max_context} tokens",
        f"memory           {_megabytes(int(info.get('weight_bytes', 0)))} weights, "
        f"{_megabytes(cache_bytes)} context",
    )
    for line in lines:
        session.screen.note(line)


def _speculated(totals: Totals) -> str:
    """Drafted and accepted tokens, and how many came of a pass."""
    if not totals.drafted_tokens:
        return "no token drafted"
    later = totals.generated_tokens - totals.replies
    return (
        f"{totals.accepted_tokens} of {totals.drafted_tokens} drafted tokens accepted, "
        f"{later / totals.decode_passes:.2f} tokens a pass"
    )


def _save(session: ChatSession, text: str) -> None:
    """/save FILE -- write the conversation and the settings to a file."""
    path = _path(text, "/save")
    store.save(path, session.conversation, session.params, str(session.generator.info()["source"]))
    session.screen.note(f"Saved {_count(session.conversation)} to {path}.")


def _load(session: ChatSession, text: str) -> None:
    """/load FILE -- go on with a saved conversation and its settings."""
    path = _path(text, "/load")
    loaded, params, model = store.load(path)
    session.conversation, session.params = loaded, params
    here = session.generator.info()["source"]
    other = "" if model == here else f" It was held with {model}."
    session.screen.note(f"Loaded {_count(loaded)} from {path}.{other}")
    for message in loaded.messages[-2:]:
        _show_end(session, message)


def _show_end(session: ChatSession, message: Mapping[str, str]) -> None:
    """The last lines of a message, so that one knows where a conversation stood."""
    lines = message["content"].splitlines()
    left_out = ["..."] if len(lines) > SHOWN_LINES else []
    prompt = "> " if message["role"] == "user" else ""
    session.screen.text(prompt + "\n".join([*left_out, *lines[-SHOWN_LINES:]]))
    session.screen.end_line()


def _exit(_: ChatSession, __: str) -> None:
    """/exit -- leave (also /quit, /bye, Ctrl-D)."""
    raise Leave


def _path(text: str, command: str) -> Path:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if not text or "\0" in text:
        raise OptionError(f"{command} needs the name of a file.")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # "~somebody" who does not exist
        raise OptionError(f"{text} names no folder of a user.") from None


def _count(talk: Conversation) -> str:
    return "1 message" if len(talk.messages) == 1 else f"{len(talk.messages)} messages"


def _densities(densities: Mapping[str, float]) -> str:
    """Densities of the last reply by site, in brackets; empty while everything is read."""
    if not densities:
        return ""
    return " (active: " + ", ".join(f"{site} {x:.0%}" for site, x in densities.items()) + ")"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


COMMANDS: dict[str, Callable[[ChatSession, str], None]] = {
    "/help": _help,
    "/clear": _clear,
    "/regen": _regen,
    "/system": _system,
    "/set": _set,
    "/sparsity": _sparsity,
    "/stats": _stats,
    "/save": _save,
    "/load": _load,
    "/exit": _exit,
}
ALIASES = {"/": "/help", "/settings": "/set", "/?": "/help", "/quit": "/exit", "/bye": "/exit"}
KEYS = (
    'Enter sends; Alt-Enter, a backslash before Enter, or """ around the text make new lines.\n'
    "Ctrl-C stops a reply or clears the line, Ctrl-D leaves."
)
