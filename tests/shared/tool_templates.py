"""Chat templates as small as they can be, one for each syntax of tool calls, and tools to offer.

Each treats tools, calls and results as the real templates of its family do, in our own words.
"""

from __future__ import annotations

from typing import Any

CHATML = (
    "{%- macro turn(role, text) -%}<|im_start|>{{ role }}\n{{ text }}<|im_end|>\n{%- endmacro -%}"
)
START = "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}"
PLAIN = (
    CHATML + "{%- for m in messages %}{{ turn(m.role, m.content) }}{% endfor -%}" + START
)  # knows no tools
HERMES = (
    CHATML
    + """
{%- for t in tools or () %}
  {{- turn('system', t.function.name ~ t.function.description) }}
{%- endfor -%}
{%- for m in messages %}
  {%- if m.tool_calls %}
    {{- '<|im_start|>assistant\\n' ~ m.content }}
    {%- for call in m.tool_calls %}
      {%- set call = call.function %}
      {{- '<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' }}
      {{- call.arguments | tojson }}{{ '}\\n</tool_call>' }}
    {%- endfor %}{{ '<|im_end|>\\n' }}
  {%- elif m.role == 'tool' %}{{ turn('user', '<tool_response>' ~ m.content) }}
  {%- else %}{{ turn(m.role, m.content) }}{% endif %}
{%- endfor %}"""
    + START
)
# The name of the tools is another, and calls made earlier are left out.
SMOLLM3 = (
    CHATML
    + """
{%- if xml_tools %}{{ turn('system', '<tool_call> ' ~ (xml_tools | string)) }}{% endif -%}
{%- if python_tools %}{{ turn('system', '<code> ' ~ (python_tools | string)) }}{% endif -%}
{%- for m in messages %}
  {{- turn('user' if m.role == 'tool' else m.role, m.content) }}
{%- endfor %}"""
    + START
)
MISTRAL = """{{ bos_token }}
{%- for t in tools or () %}[AVAILABLE]{{ t.function.name ~ t.function.description }}{% endfor %}
{%- for m in messages %}
  {%- if m.tool_calls %}
    {{- '[TOOL_CALLS] [' }}
    {%- for call in m.tool_calls %}
      {%- if call.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}
      {{- call.function | tojson }}{{ ', ' if not loop.last }}
    {%- endfor %}{{ ']' ~ eos_token }}
  {%- elif m.role == 'tool' %}
    {%- if m.tool_call_id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}
    {{- '[TOOL_RESULTS]' ~ m.content }}
  {%- else %}{{ '[INST]' ~ m.content ~ '[/INST]' }}{% endif %}
{%- endfor %}"""
# Arguments as text only, as templates of DeepSeek want them.
MISTRAL_ARGS = """{{ bos_token }}{{ tools | tojson if tools }}
{%- for m in messages %}
  {%- if m.tool_calls %}
    {%- for call in m.tool_calls %}
      {{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + call.function.arguments }}
    {%- endfor %}
  {%- else %}{{ m.content }}{% endif %}
{%- endfor %}"""
LLAMA3 = (
    CHATML
    + """
{%- for t in tools or () %}
  {{- turn('ipython', t.function.name ~ t.function.description) }}
{%- endfor -%}
{%- for m in messages %}
  {%- if m.tool_calls %}
    {%- if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}
    {%- set call = m.tool_calls[0].function %}
    {{- '{"name": "' ~ call.name ~ '", "parameters": ' ~ (call.arguments | tojson) ~ '}' }}
  {%- else %}{{ turn('ipython' if m.role == 'tool' else m.role, m.content) }}{% endif %}
{%- endfor %}"""
    + START
)
GRANITE = SMOLLM3.replace("<tool_call>", "<|tool_call|>").replace("xml_tools", "tools")
THINKING = HERMES.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "day": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}
