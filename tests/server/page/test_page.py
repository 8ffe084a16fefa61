"""The page in a real browser: chat, stop, keyboard, files, a phone in light and dark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from page_user import HOSTILE, Open, answer_with, ask, kept
from serving_tiny import NAME

from sparity_edge import Generator, SamplingParams
from sparity_edge.server.scheduler import Scheduler


def test_an_answer_is_the_model_s_and_is_kept(visit: Open, generator: Generator) -> None:
    page = visit()
    answer = ask(page, "hello there", temperature=0, max_tokens=8, system="be kind")
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello there"}]
    expected = generator.chat(turns, SamplingParams(temperature=0, max_tokens=8))
    assert kept(page)[1]["content"] == expected.text
    assert f"{expected.stats.generated_tokens} tokens" in answer.inner_text()
    assert page.title().startswith(NAME)
    assert "prompt tokens from cache" in ask(page, "and again").inner_text()
    page.reload()
    assert page.locator("article").count() == 4
    assert page.input_value("#system") == "be kind"
    page.get_by_text("Regenerate").last.click()
    page.locator("body:not(.busy)").wait_for()
    assert [each["role"] for each in kept(page)] == ["user", "assistant"] * 2


def test_the_keyboard_is_enough(visit: Open, scheduler: Scheduler) -> None:
    page = visit()
    page.locator("#model", has_text=NAME).wait_for()
    page.keyboard.type("one")  # the composer has the focus
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    with scheduler.loaded.busy:  # the model is at work: the answer cannot begin
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.locator("#stop:focus").wait_for()
        page.keyboard.press("Escape")
        page.locator("#send:focus").wait_for()
    assert [each["content"] for each in kept(page)] == ["one\ntwo", ""]
    page.locator("article.user button").press("Enter")
    assert page.input_value("#text:focus") == "one\ntwo"
    page.keyboard.press("Escape")
    assert page.input_value("#text") == ""
    page.locator("#new").press("Enter")
    assert kept(page) == []
    page.locator("#undo").press("Enter")
    assert len(kept(page)) == 2
    names = page.get_by_role("button").all() + page.get_by_role("textbox").all()
    assert all('"' in each.aria_snapshot() for each in names)


def test_the_conversation_is_saved_as_a_file(visit: Open) -> None:
    page = visit()
    answer_with(page, "**b**")
    ask(page, "a")
    texts = []
    for kind in ("markdown", "json"):
        with page.expect_download() as download:
            page.click(f"#export-{kind}")
        texts.append(Path(download.value.path()).read_text(encoding="utf-8"))
    assert texts[0] == f"# Conversation with {NAME}\n\n## You\n\na\n\n## Answer\n\n**b**\n"
    assert [each["content"] for each in json.loads(texts[1])["messages"]] == ["a", "**b**"]


def test_what_the_server_refuses_is_told(visit: Open) -> None:
    page = visit()
    answer = ask(page, "hello", top_p=7)
    assert "top_p" in answer.get_by_role("alert").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible_on_a_phone(visit: Open, scheme: str) -> None:
    page = visit(scheme, 360)
    answer_with(
        page, f"{HOSTILE}\n\n{'x' * 300}\n\n    {'y ' * 300}\n\n{'| z ' * 50}\n{'|-' * 50}\n"
    )
    ask(page, "w" * 300)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("document.getElementById('log').scrollWidth") <= 360
    page.click("#toggle")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("#system").is_visible()
    page.click("#done")
    for where in (".user .text", ".markdown", ".facts", "#dial-box", "a", ".fault", "#send"):
        assert page.locator(where).first.evaluate(CONTRAST) >= 4.5, where


# The contrast of WCAG between an element's text and the colour behind it.
CONTRAST = """element => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = channels(colour).slice(0, 3).map((each) => each / 255)
            .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let behind = element;
    const colour = () => getComputedStyle(behind).backgroundColor;
    while (channels(colour())[3] === 0) behind = behind.parentElement;
    const both = [light(getComputedStyle(element).color), light(colour())].sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05);
}"""
