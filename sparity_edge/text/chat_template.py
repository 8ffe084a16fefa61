"""Chat templates: a conversation as the one text that a model was trained on.

Templates are Jinja2 programs in the dialect of transformers, written by strangers. They run in
Jinja's immutable sandbox, and every render has a budget: each turn of a loop, each call of a macro
and each character or item that an operation reads or makes is paid for (`template_budget`), so
that no template loops for ever, fills the memory or prints without end. Nothing here knows of
tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import OptionError, TemplateError

if TYPE_CHECKING:
    from jinja2 import Environment

# Real templates have 0.3 to 20 thousand characters.
MAX_SOURCE = 1 << 18
# The budget of a render: a fixed part, and for each character of the conversation as many units
# as there are messages (templates that look at all messages at each one) and some more. A real
# template takes 10 to 30 units a character; a million units last half a second at worst.
FIXED_BUDGET = 1_000_000
BUDGET_PER_CHARACTER = 64
MAX_REASON = 300
# What a message's reasoning may be called; of several the first counts. Templates read the first,
# those of gpt-oss the second.
REASONING = ("reasoning_content", "thinking", "reasoning")
OURS = ("messages", "add_generation_prompt")  # variables that are no options


class ChatTemplate:
    """A template, parsed and compiled once.

    Args:
        source: the template's text.

    Raises:
        TemplateError: it is too long or is not a template.
    """

    def __init__(self, source: str) -> None:
        self._code = _compile(source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        special_tokens: Mapping[str, str],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as text.

        Args:
            messages: mappings with "role" and "content", both strings; further keys are handed on,
                reasoning under every name that templates read it by.
            special_tokens: "bos_token", "eos_token" ... as the template's variables.
            add_generation_prompt: end with the beginning of the assistant's reply.
            variables: the template's own variables, such as "enable_thinking"; plain JSON values.

        Raises:
            TemplateError: the template fails, refuses the messages or exceeds its limits.
            OptionError: a message or a variable is not what it should be.
        """
        from jinja2 import Template

        from sparity_edge.text.template_budget import Budget, weigh
        from sparity_edge.text.template_sandbox import bounded_environment

        plain, own = _plain_messages(messages), plain_variables(variables)
        size = weigh([plain, own], FIXED_BUDGET * 100)
        budget = Budget(FIXED_BUDGET + size * (BUDGET_PER_CHARACTER + len(plain)))
        environment: Environment = bounded_environment(budget)
        try:
            template = Template.from_code(environment, self._code, environment.make_globals(None))
            return template.render(
                {
                    **special_tokens,  # named by strangers, so ours go over them
                    "tools": None,
                    "documents": None,
                    **own,
                    "messages": plain,
                    "add_generation_prompt": add_generation_prompt,
                }
            )
        except TemplateError:
            raise
        except Exception as error:  # whatever a stranger's program can raise
            raise _failure(error) from None


def _compile(source: str) -> CodeType:
    from sparity_edge.text.template_budget import Budget
    from sparity_edge.text.template_meter import meter
    from sparity_edge.text.template_sandbox import bounded_environment

    if len(source) > MAX_SOURCE:
        raise TemplateError(
            f"The chat template has {len(source)} characters, more than the {MAX_SOURCE} allowed; "
            f"it is not run."
        )
    environment = bounded_environment(Budget(0))
    try:
        return environment.compile(meter(environment.parse(source)), "chat template")
    except Exception as error:  # syntax errors, but also RecursionError and what compile() raises
        raise _failure(error) from None


def _failure(error: Exception) -> TemplateError:
    from jinja2 import TemplateSyntaxError

    from sparity_edge.text.template_sandbox import Refused

    reason = "".join(c if c.isprintable() else " " for c in str(error) or type(error).__name__)
    reason = " ".join(reason.split())[:MAX_REASON].rstrip(".")
    if isinstance(error, Refused):
        return TemplateError(f"The model's chat template refuses this conversation: {reason}.")
    if isinstance(error, TemplateSyntaxError):
        return TemplateError(f"The chat template is damaged (line {error.lineno}: {reason}).")
    return TemplateError(f"The chat template fails: {reason}.")


def _plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A copy made of plain JSON types only, so that the template gets hold of nothing else."""
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise OptionError("messages is not a list of mappings with 'role' and 'content'.")
    plain = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise OptionError(f"message {number} is not a mapping with 'role' and 'content'.")
        if message.get("content") is None and message.get("tool_calls"):
            message = {**message, "content": ""}  # as clients have what only calls
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise OptionError(f"message {number} has no string {key!r}.")
        plain.append(_named_reasoning({str(key): _plain(value) for key, value in message.items()}))
    return plain


def _named_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """The message as transformers 5 hands it on: without None, its reasoning under all names."""
    message = {key: value for key, value in message.items() if value is not None}
    found = [message[name] for name in REASONING if name in message]
    if found:
        message = {"thinking": found[0], **message, "reasoning_content": found[0]}
    return message


def plain_variables(variables: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of a template's variables made of plain JSON types only.

    Raises:
        OptionError: a name cannot be a variable's, or a value is not JSON.
    """
    if variables is None:
        return {}
    if not isinstance(variables, Mapping):
        raise OptionError(f"template_args={variables!r} does not map names to values.")
    for name in variables:
        if not isinstance(name, str) or not name.isidentifier() or name in OURS:
            raise OptionError(f"{name!r} is no name of a template's variable that may be set.")
    try:
        return {name: _plain(value) for name, value in variables.items()}
    except OptionError:
        raise OptionError(f"template_args={variables!r} holds what is not JSON.") from None
    except RecursionError:
        raise OptionError("template_args is nested too deeply.") from None


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise OptionError(f"a message holds a {type(value).__name__}, which is not JSON.")
