"""Chat templates of a folder, rendered here and by transformers: where do the two differ?

Run by hand, never by the tests, where both can be imported:

    pip install transformers jinja2
    PYTHONPATH=. python tests/golden/compare_templates.py FOLDER

FOLDER holds files `*.jinja`, such as models/templates of llama.cpp. Every template renders every
conversation below, with and without a generation prompt, with thinking on, off and not mentioned.
Printed are the differences, counting a refusal by both sides as agreement; the exit code is 1 if
there are any. With transformers 5.24.0 nothing differs in the 55 templates of ik_llama.cpp, nor in
the 18 of github.com/chujiezheng/chat_templates.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import _normalize_chat_messages, render_jinja_template

from sparity_edge.errors import TemplateError
from sparity_edge.text.chat_template import ChatTemplate

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
SYSTEM = {"role": "system", "content": "Be brief.\nAnswer in <b>one</b> sentence."}
USER = {"role": "user", "content": " Hi & <bye> \n"}
REPLY = {"role": "assistant", "content": "Hello.\n\n<tag> 'a' \"b\" é 漢"}
THOUGHT = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nYes."}
CALLS = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call00001", "type": "function",
         "function": {"name": "add", "arguments": {"a": 1, "b": ["<x>", None, True]}}}
    ],
}  # fmt: skip
RESULT = {"role": "tool", "content": "3 < 4", "tool_call_id": "call00001", "name": "add"}
REASONED = {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}
CONVERSATIONS = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "system alone": [SYSTEM],
    "empty": [{"role": "user", "content": ""}],
    "turns": [USER, REPLY, USER],
    "system and turns": [SYSTEM, USER, REPLY, USER, REPLY],
    "thinking": [USER, THOUGHT, USER],
    "reasoned": [SYSTEM, USER, REASONED, USER, REASONED],
    "roles": [USER, USER, REPLY],
    "tools": [USER, CALLS, RESULT, REPLY, USER],
    "unknown role": [{"role": "critic", "content": "No."}],
}
VARIABLES: list[dict[str, Any]] = [{}, {"enable_thinking": False}, {"enable_thinking": True}]


def theirs(source: str, messages: list[dict[str, Any]], **options: Any) -> str | None:
    """What transformers makes of a conversation; None where the template refuses it."""
    try:
        found, _ = render_jinja_template(
            [_normalize_chat_messages(messages)], chat_template=source, **TOKENS, **options
        )
    except Exception as error:  # whatever a stranger's program raises
        print(f"      (transformers: {type(error).__name__}: {str(error)[:90]})")
        return None
    return str(found[0])


def ours(template: ChatTemplate, messages: list[dict[str, Any]], **options: Any) -> str | None:
    """What we make of it."""
    prompt = options.pop("add_generation_prompt")
    try:
        return template.render(
            messages, TOKENS, add_generation_prompt=prompt, variables=options or None
        )
    except TemplateError as error:
        print(f"      (here: {str(error)[:120]})")
        return None


def main() -> int:
    """Compare all templates of the folder that is named."""
    differing = pairs = 0
    for path in sorted(Path(sys.argv[1]).glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        print(path.name)
        template = ChatTemplate(source)
        for (name, messages), prompt, variables in itertools.product(
            CONVERSATIONS.items(), (True, False), VARIABLES
        ):
            options = {"add_generation_prompt": prompt, **variables}
            expected = theirs(source, messages, **options)
            found = ours(template, messages, **options)
            pairs += 1
            if found != expected:
                differing += 1
                print(f"  {name} {options}:\n    theirs {expected!r}\n    ours   {found!r}")
    print(f"{differing} of {pairs} differ")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
