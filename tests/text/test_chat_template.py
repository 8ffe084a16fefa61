"""Chat templates: the dialect of transformers, and strangers' templates that go wrong."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

from sparity_edge.errors import OptionError, TemplateError
from sparity_edge.text.chat_template import MAX_SOURCE, ChatTemplate

USER = {"role": "user", "content": "Hi & <bye>"}
ASSISTANT = {"role": "assistant", "content": " Hello.\n"}
SYSTEM = {"role": "system", "content": "Be brief."}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

CHATML = """{% for message in messages %}
    {% if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
HEADERS = """{{- bos_token }}
{%- set ns = namespace(system="", index=0) %}
{%- if messages[0]["role"] == "system" %}
    {%- set ns.system = messages[0]["content"] | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- if tools is defined and tools %}{{ tools | tojson }}{% endif %}
{%- if ns.system %}<|header|>system<|/header|>

{{ ns.system }}<|eot|>{% endif %}
{%- for message in messages -%}
<|header|>{{ message.role }}<|/header|>

{{ message.content | trim }}<|eot|>
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|header|>assistant<|/header|>\\n\\n" }}{% endif %}"""
INST = """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' ~ message['content'] ~ ' [/INST]' }}
{% else %}
{{ message['content'].strip() + eos_token }}
{% endif %}
{% endfor %}"""


def render(source: str, *messages: dict[str, Any], prompt: bool = True) -> str:
    return ChatTemplate(source).render(messages, TOKENS, add_generation_prompt=prompt)


def test_chatml_with_a_default_system_prompt() -> None:
    assert render(CHATML, USER) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi & <bye><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert render(CHATML, SYSTEM, USER, ASSISTANT, prompt=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi & <bye><|im_end|>\n"
        "<|im_start|>assistant\n Hello.\n<|im_end|>\n"
    )


def test_headers_with_namespace_and_slices() -> None:
    assert render(HEADERS, SYSTEM, USER) == (
        "<s><|header|>system<|/header|>\n\nBe brief.<|eot|>"
        "<|header|>user<|/header|>\n\nHi & <bye><|eot|><|header|>assistant<|/header|>\n\n"
    )


def test_alternating_roles() -> None:
    assert render(INST, USER, ASSISTANT, USER) == (
        "<s>[INST] Hi & <bye> [/INST]\nHello.</s>\n[INST] Hi & <bye> [/INST]\n"
    )
    with pytest.raises(TemplateError, match="refuses this conversation: Conversation roles must"):
        render(INST, SYSTEM, USER)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% generation %}{{ 1 + 1 }}{% endgeneration %}", "2"),
        ("{{ {'b': '<é>', 'a': [1]} | tojson }}", '{"b": "<é>", "a": [1]}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("  {% if true %}\nx\n  {% endif %}\ny\n", "x\ny"),
        ("{{ undefined_thing }}|{{ messages[0].missing }}", "|"),
        ("{{ messages | map(attribute='role') | join(',') }}", "user"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ range(3) | list }}{{ 'a' * 3 }}{{ 2 ** 10 }}{{ '%s-%d' % ('a', 7) }}", None),
        ("{{ 'a-b'.split('-')[1] }}{{ 'x'.center(3) }}{{ '{:>3}'.format(7) }}", "b x   7"),
        ("{% macro m(n) %}<{{ n }}>{% endmacro %}{{ m(1) ~ m(2) }}", "<1><2>"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x }}{{ 'a' in x }}", "a1True"),
        ("{{ dict(a=1).items() | list }}{{ {'a': 1}.get('b', 2) }}", "[('a', 1)]2"),
        ("{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}", "TrueTrueTrue"),
        ("{{ 'abc'[::-1] }}{{ 'abc' | replace('b', 'XX') }}{{ ' a ' | trim }}", "cbaaXXca"),
    ],
)
def test_what_templates_use(source: str, expected: str | None) -> None:
    assert render(source, USER) == (expected or "[0, 1, 2]aaa1024a-7")


def test_date() -> None:
    year = str(datetime.datetime.now().year)
    assert render("{{ strftime_now('%Y') }}", USER) == year


def doubling(start: str, turn: str, end: str = "") -> str:
    """A template that makes its value ns.s twice as large sixty times."""
    loop = "{% for i in range(60) %}" + turn + "{% endfor %}"
    return "{% set ns = namespace(s=" + start + ") %}" + loop + end


def shared(end: str) -> str:
    """One whose ns.s holds itself twice, sixty levels deep, in little memory."""
    return doubling("(1,)", "{% set ns.s = (ns.s, ns.s) %}", end)


ENDLESS = {
    "nested loops": "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "much text": "{% for i in range(99999) %}" + "x" * 999 + "{% endfor %}",
    "recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "branching macro": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(70) }}"
    ),
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "doubling +": doubling("'a'", "{% set ns.s = ns.s + ns.s %}"),
    "doubling ~": doubling("'a'", "{% set ns.s = ns.s ~ ns.s %}"),
    "doubling block": doubling("'a'", "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}"),
    "doubling join": doubling("'a'", "{% set ns.s = [ns.s, ns.s] | join %}"),
    "doubling method": doubling("'a'", "{% set ns.s = ''.join([ns.s, ns.s]) %}"),
    "doubling format": doubling("'a'", "{% set ns.s = '{0}{0}'.format(ns.s) %}"),
    "doubling %": doubling("'a'", "{% set ns.s = '%s%s' % (ns.s, ns.s) %}"),
    "squaring": doubling("9", "{% set ns.s = ns.s * ns.s %}"),
    "shared, printed": shared("{{ ns.s }}"),
    "shared, namespace": shared("{{ ns }}"),
    "shared, as JSON": shared("{{ ns.s | tojson }}"),
    "shared, hashed": shared("{{ {ns.s: 1} }}"),
    "shared, looked up": shared("{{ {}.get(ns.s) }}{{ {}[ns.s] }}"),
    "shared, compared": shared("{{ ns.s == [ns.s] }}"),
    "shared, tested": shared("{{ ns.s is eq(1) }}"),
    "deep": "{% set ns = namespace(s=1) %}{% for i in range(20000) %}{% set ns.s = (ns.s,) %}"
    "{% endfor %}{{ {}.get(ns.s) }}",
    "*": "{{ 'x' * 10 ** 12 }}",
    "list *": "{{ [1] * 10 ** 12 }}",
    "**": "{{ 9 ** 9 ** 9 }}{{ (9 ** 9 ** 9) ** 999999 }}",
    "%": "{{ '%999999999d' % 1 }}",
    "% *": "{{ '%*d' % (999999999, 1) }}",
    "ljust": "{{ 'x'.ljust(10 ** 12) }}",
    "center": "{{ 'x' | center(10 ** 12) }}",
    "format": "{{ '{:999999999}'.format(1) }}",
    "format nested": "{{ '{:{}}'.format(1, 999999999) }}",
    "format map": "{{ '{a:{b}}'.format_map({'a': 1, 'b': 999999999}) }}",
    "format bracket": "{{ '{0[}]:{0[x]}}'.format({'}': 1, 'x': 999999999}) }}",
    "replace": "{% set s = 'a' * 99999 %}{{ s.replace('a', s) }}",
    "replace filter": "{% set s = 'a' * 99999 %}{{ s | replace('', s) }}",
    "replace keyword": "{% set s = 'a' * 99999 %}{{ s | replace(old='a', new=s) }}",
    "replace swapped": "{% set s = 'a' * 99999 %}{{ s | replace(new=s, old='a') }}",
    "replace in list": "{{ [1] * 99999 | replace('1', 'a' * 99999) }}",
    "join keys": "{% set d = dict.fromkeys(range(99999) | map('string')) %}"
    "{{ ('a' * 99999).join(d.keys()) }}",
    "join range": "{{ ('a' * 99999).join(range(99999) | map('string')) }}",
    "indent": "{{ ('\n' * 99999) | indent(9999, blank=true) }}",
    "indent text": "{{ ('\n' * 99999) | indent('x' * 9999, blank=true) }}",
    "expandtabs": "{{ ('\t' * 99999).expandtabs(9999) }}",
    "round": "{{ 1.5 | round(999999999, 'ceil') }}",
    "JSON indent": "{{ [[1]] | tojson(indent=10 ** 9) }}",
    "slices": "{% set l = range(99999) | list %}{% for i in range(99999) %}{% set x = l[:] %}"
    "{% endfor %}",
    "scans": "{% set l = range(99999) | list %}{% for i in range(99999) %}{{ 0.5 in l }}"
    "{% endfor %}",
    "lazy filters": "{% for i in range(99999) %}{{ range(99999) | map('abs') | first }}"
    "{% endfor %}",
    "max of ranges": "{% for i in range(99999) %}{{ range(99999) | max }}{% endfor %}",
    "many spaces": "{% for i in range(99999) %}{{ 'x'.ljust(9999) | length }}{% endfor %}",
    "deep expression": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep not": "{{ " + "not " * 5000 + "1 }}",
    "deep loops": "{% for i in [1] %}" * 60 + "{% endfor %}" * 60,
    "itself": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_endless_work_ends_in_a_sentence(source: str) -> None:
    started = time.monotonic()
    with pytest.raises(TemplateError, match=r"^The chat template \S.*\.$"):
        render(source, USER)
    assert time.monotonic() - started < 10  # below 1 s on a quiet machine


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ messages | attr('__class__') }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ namespace(__class__=1) }}",
        "{{ namespace({'__class__': 1}) }}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ 'x'.encode() }}",
        "{{ cycler.__init__.x }}",
        "{{ lipsum(10 ** 9) }}",
        "{{ (1).__class__.__base__.__subclasses__() }}",
        "{{ dict.__class__.__mro__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{{ range(10 ** 9) }}",
        "{{ 1 / 0 }}",
        "{{ '' | nothing }}",
        "{{ 1 is nothing }}",
        "{{ nothing() }}",
        "{{ messages.x.y }}",
        "{% for %}",
        "{{ 1",
        "x" * (MAX_SOURCE + 1),
    ],
)
def test_escapes_and_faults_end_in_a_sentence(source: str) -> None:
    with pytest.raises(TemplateError, match=r"^The chat template \S.*\.$"):
        render(source, USER)


def test_format_reaches_no_private_attribute() -> None:
    assert render("{{ '{0.__class__}'.format(1) }}", USER) == ""


def test_the_reason_is_one_short_printable_line() -> None:
    source = "{{ raise_exception('a\\nb\x1b[2Jc' ~ 'd' * 5000) }}"
    with pytest.raises(TemplateError) as caught:
        render(source, USER)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_long_conversations_are_within_the_budget() -> None:
    messages = [USER, ASSISTANT] * 300 + [{"role": "user", "content": "long " * 100_000}]
    for source in (CHATML, HEADERS, INST):
        assert len(render(source, *messages)) > 500_000
    quadratic = "{% for m in messages %}{% if messages | selectattr('role') | list %}{% endif %}"
    assert render(quadratic + "{{ m.role }}{% endfor %}", *messages[:100]).startswith("userassis")


@pytest.mark.parametrize(
    "messages",
    [
        "hello",
        [1],
        [{"role": "user"}],
        [{"content": "x"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": "x", "extra": object()}],
    ],
)
def test_messages_are_checked(messages: Any) -> None:
    with pytest.raises(OptionError):
        ChatTemplate(CHATML).render(messages, TOKENS)


def test_a_template_cannot_change_the_messages() -> None:
    messages = [dict(USER)]
    ChatTemplate("{% set messages = [] %}").render(messages, TOKENS)
    assert messages == [USER]
