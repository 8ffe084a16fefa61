"""What the page lets nobody do: hostile Markdown, names of files, a server with a key."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from page_user import HOSTILE, Open, answer_with, ask
from serving_tiny import KEY, NAME

from sparity_edge.server import page_routes

FOLDER = Path(page_routes.__file__).parent / "page"


def test_exactly_its_files_are_served_without_a_key(address: str) -> None:
    here = [each for each in FOLDER.rglob("*") if each.suffix not in (".LICENSE", ".md")]
    assert {each.relative_to(FOLDER).as_posix() for each in here if each.is_file()} == {
        *page_routes.FILES
    }
    for path, name in page_routes.PATHS.items():
        with urllib.request.urlopen(address + path, timeout=30) as answer:
            assert answer.read() == (FOLDER / name).read_bytes()
            assert answer.headers["Content-Security-Policy"] == page_routes.POLICY
    for path in (
        "/page/",
        "/page/../page/page.js",
        "/page/%2e%2e/app.py",
        "/page/vendor/README.md",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address + path, timeout=30)
        refused.value.close()
        assert refused.value.code == 401


def test_a_server_with_a_key_is_unlocked(visit: Open) -> None:
    page = visit(key="")
    for key in ("wrong", KEY):
        page.fill("#key", key)
        page.press("#key", "Enter")
        if key == "wrong":
            page.get_by_text("That key does not fit.").wait_for()
    page.locator("#model", has_text=NAME).wait_for()
    page.locator("#unlock").wait_for(state="hidden")


def test_hostile_markdown_does_nothing(visit: Open) -> None:
    page = visit()
    answer_with(page, HOSTILE)
    ask(page, "hello")
    answer_with(page, "_a_ " + "a" * 10_000)  # too long a paragraph: shown as it is
    assert ask(page, "hello").locator("em").count() == 0
    answer = page.locator("article.assistant").first
    assert page.evaluate("window.hit") is None
    assert answer.locator("script, img, svg, style, iframe, form, input, [id]").count() == 0
    links = answer.locator("a").evaluate_all("found => found.map((each) => each.href)")
    assert links == ["", "https://example.org/"]
    assert "<script>window.hit = 1</script>" in answer.inner_text()
    assert answer.locator("pre").inner_text().rstrip() == "<b>bold</b>"
