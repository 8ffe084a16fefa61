"""A real browser, and the server's page in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from page_user import Open
from serving_tiny import KEY


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no chromium on the path: the page is not tried in a browser")
    return found


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    reason = "playwright is not installed: the page is not tried in a browser"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    path = chromium()
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox wants a user other than root.
        launched = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Open]:
    """Opens the page; nothing may leave the host, and no error may stand in the console."""
    contexts, faults = [], []

    def opened(scheme: str = "light", width: int = 1280, key: str = KEY) -> Any:
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 740}, base_url=address
        )
        contexts.append(context)
        context.set_default_timeout(300_000)  # the first answer may have kernels to compile
        page = context.new_page()
        page.on("request", lambda each: each.url.startswith((address, "blob:")) or fault(each.url))
        page.on("pageerror", fault)
        page.on("console", lambda each: each.type == "error" and fault(each.text))
        if key:
            page.add_init_script(f"sessionStorage['sparity-edge.key'] = '\"{key}\"'")
        page.goto("/")
        return page

    def fault(what: object) -> None:
        if "status of 40" not in str(what):  # what the server refuses is told in the console too
            faults.append(str(what))

    yield opened
    for context in contexts:
        context.close()
    assert faults == []
