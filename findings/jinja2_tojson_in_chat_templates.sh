#!/usr/bin/env bash
# Jinja2 3.1.6 and chat templates: the filter `tojson` of Jinja2 gives other text than models were
# trained on.
#
# Chat templates of Hugging Face models write tools and arguments with `tojson`. transformers puts a
# filter of its own in its place. Jinja2's sorts the keys and writes <, >, & and ' as \u003c and so on,
# meant for HTML. Whoever renders a template with Jinja2 alone gets a prompt that looks right in
# every other way, in which the schema of each tool has another order and other characters.
#
# Seen: {"description": "it\u0027s", "name": "a\u003cb", "type": "function"}; transformers 5.3.0:
# {"type": "function", "name": "a<b", "description": "it's"}
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet jinja2==3.1.6 transformers==5.3.0
"$place/venv/bin/python" - 2>/dev/null <<'PYTHON'
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers.utils.chat_template_utils import render_jinja_template

template = "{{ messages[0].content | tojson }}"
tool = {"type": "function", "name": "a<b", "description": "it's"}
messages = [{"role": "user", "content": tool}]
alone = ImmutableSandboxedEnvironment().from_string(template).render(messages=messages)
theirs = render_jinja_template([messages], chat_template=template)[0][0]
print(alone)
print(theirs)
assert alone == r'{"description": "it\u0027s", "name": "a\u003cb", "type": "function"}', "no longer so"
assert theirs == '{"type": "function", "name": "a<b", "description": "it\'s"}', "no longer so"
PYTHON
