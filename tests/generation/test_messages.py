"""Messages: a string to `chat` is one, template variables, and reasoning as transformers has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparity_edge import Generator, OptionError, SamplingParams
from sparity_edge.cli.options.template import _pair
from sparity_edge.text.chat_template import ChatTemplate

FEW = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
TEXT = "Name a river."
ASKED = [{"role": "user", "content": TEXT}]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}<quick>{% endif %}"
)
USAGE = Path(__file__).resolve().parents[2] / "docs" / "usage.md"


@pytest.fixture
def generator(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Generator]:
    with Generator.load(checkpoint("llama_gqa"), dtype="f32", threads=1) as loaded:
        monkeypatch.setattr(loaded.tokenizer, "chat_template", TEMPLATE)
        monkeypatch.setattr(loaded.tokenizer, "_template", None)
        yield loaded


def test_a_string_to_chat_is_one_message_of_the_user(generator: Generator) -> None:
    answer = generator.chat(TEXT, FEW)
    assert answer.token_ids == generator.chat(ASKED, FEW).token_ids
    assert answer.stats.prompt_tokens == len(generator.encode(ASKED))
    for empty in ("", " ", [], ()):
        with pytest.raises(OptionError, match="empty"):
            generator.chat(empty, FEW)
    for wrong in ([1, 2], b"text", None, [TEXT]):
        with pytest.raises(OptionError, match=r"messages|Generator\.generate"):
            generator.chat(wrong, FEW)  # type: ignore[arg-type]


def test_template_args_reach_the_template_from_every_call(generator: Generator) -> None:
    options: dict[str, Any] = {"template_args": {"enable_thinking": False}}
    plain, quick = generator.encode(ASKED), generator.encode(ASKED, **options)
    assert generator.tokenizer.decode(quick) == generator.tokenizer.decode(plain) + "<quick>"
    counted = [
        generator.chat(TEXT, FEW, **options).stats,
        generator.generate(ASKED, FEW, **options).stats,
        list(generator.stream(ASKED, FEW, **options))[-1].stats,
        *(each.stats for each in generator.generate_batch([ASKED, ASKED], FEW, **options)),
        list(generator.stream_batch([ASKED], FEW, **options))[-1][1].stats,
    ]
    assert {stats.prompt_tokens for stats in counted} == {len(quick)}
    for prompt in (TEXT, [1, 2]):
        with pytest.raises(OptionError, match="template_args are for messages"):
            generator.generate(prompt, FEW, **options)
    for wrong in ({"messages": []}, {"a b": 1}, {"x": object()}, "enable_thinking"):
        with pytest.raises(OptionError):
            generator.chat(TEXT, FEW, template_args=wrong)  # type: ignore[arg-type]


def test_the_examples_of_the_page_run(generator: Generator) -> None:
    blocks = re.findall(r"```python\n(.*?)```", USAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    known = {"generator": generator, "params": FEW, "np": np}
    for block in blocks:
        if "base_url=" in block:  # of a server's clients, which tests/server runs
            continue
        exec(compile(block, "docs/usage.md", "exec"), known)
    each_alone = [generator.chat(text, FEW).text for text in known["questions"]]
    assert [each.text for each in known["completions"]] == each_alone


@pytest.mark.parametrize(
    ("given", "seen"),
    [  # what transformers 5.24 hands to the template
        ({}, "--"),
        ({"reasoning": "R"}, "R-R-R"),
        ({"thinking": "T", "reasoning": "R"}, "T-T-R"),
        ({"reasoning_content": "C", "thinking": "T"}, "C-T-"),
        ({"reasoning_content": None, "reasoning": "R"}, "R-R-R"),
        ({"reasoning_content": "", "thinking": "T"}, "-T-"),
        ({"reasoning": None}, "--"),
    ],
)
def test_reasoning_reaches_the_template_under_every_name(given: dict[str, Any], seen: str) -> None:
    source = (
        "{{ messages[0].reasoning_content }}-{{ messages[0].thinking }}-{{ messages[0].reasoning }}"
    )
    message = {"role": "assistant", "content": "x", **given}
    assert ChatTemplate(source).render([message], {}) == seen
    assert message == {"role": "assistant", "content": "x", **given}


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("false", False),
        ("False", False),
        ("TRUE", True),
        ("none", None),
        ("3", 3),
        ("0.5", 0.5),
        ("high", "high"),
        ('"3"', "3"),
        ('["a", {"b": null}]', ["a", {"b": None}]),
        ("a=b", "a=b"),
        ("NaN", "NaN"),
        ("", ""),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_values_on_the_command_line(typed: str, value: object) -> None:
    assert _pair(f"enable_thinking={typed}") == ("enable_thinking", value)
