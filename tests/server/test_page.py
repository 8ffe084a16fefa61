"""The page in a real browser: chat, stop, keyboard, phone, dark, and hostile Markdown."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_tiny import KEY, NAME

from sparity_edge import Generator, SamplingParams
from sparity_edge.server import page_routes
from sparity_edge.server.scheduler import Scheduler

FOLDER = Path(page_routes.__file__).parent / "page"
HOSTILE = """\
<script>window.hit = 1</script><img src=x onerror="window.hit = 1">
<svg onload="window.hit = 1"><style>body { display: none }</style></svg>

[a](javascript:window.hit=1) [b](https://example.org "t") ![c](https://evil.example/c.png)
<a href="data:text/html,x">d</a> <form id="settings" action="https://evil.example"><input>

| wide | table |
|---|---|
| <iframe src="https://evil.example"></iframe> | `code` |

```"onmouseover="window.hit=1
<b>bold</b>
```
"""
PLANS = {
    "default": "chess@0.5",
    "data": [
        {"id": "auto", "most_sparsity": 0.4, "most_sparsity_unforced": 0.4, "positions": []},
        {
            "id": "chess",
            "most_sparsity": 0.6,
            "most_sparsity_unforced": 0.3,
            "positions": [
                {"sparsity": 0, "level": 0, "kl": 0},
                {"sparsity": 0.2, "level": 0.5, "kl": 0.04},
                {"sparsity": 0.6, "level": 1, "kl": 0.24},
            ],
        },
    ],
}
Open = Callable[..., Any]  # (scheme="light", width=1280, key=KEY) -> a page of Playwright


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium on the path: the page is not tried in a browser")
    return found


@pytest.fixture(scope="module")
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
        context.set_default_timeout(30_000)
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


def ask(page: Any, text: str, **settings: object) -> Any:
    """Ask as a user does, and wait for the answer."""
    for name, value in settings.items():
        page.fill(f"#{name}", str(value))
    page.fill("#text", text)
    page.press("#text", "Enter")
    page.locator("body:not(.busy)").wait_for()
    return page.locator("article.assistant").last


def kept(page: Any) -> list[dict[str, Any]]:
    """The conversation in the browser's storage."""
    found = page.evaluate("localStorage['sparity-edge.conversation']")
    return json.loads(found) if found else []


def answer_with(page: Any, text: str, active: float = 1, **headers: str) -> None:
    """Have the next answers be `text`, whatever the model would say."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    usage = {"completion_tokens": 3, "active_weight_fraction": active}
    event = json.dumps({"choices": [choice], "usage": usage})
    body = f"data: {event}\n\ndata: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, headers=headers))


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


def test_the_dial_tells_what_it_costs_and_is_followed(visit: Open) -> None:
    page = visit()
    page.get_by_text("sparity-edge calibrate").wait_for()  # there is no plan
    page.route("**/v1/plans", lambda route: route.fulfill(json=PLANS))
    page.reload()
    page.locator("#dial-box").wait_for()
    assert page.input_value("#plan") == "chess"
    assert page.locator("#dial-value").inner_text() == "20 %"
    facts = page.locator("#facts")
    assert "0.040" in facts.inner_text()
    assert "active, expected\n80 %" in facts.inner_text()
    for _ in range(20):
        page.press("#dial", "ArrowRight")
    assert "0.14" in facts.inner_text()
    assert page.get_attribute("#dial", "aria-valuetext") == "40 % of weights skipped, KL 0.14"
    answer_with(page, "a", 0.613, **{"X-Sparity-Plan": "chess:0.4"})
    with page.expect_request("**/v1/chat/completions") as sent:
        assert "61 % of weights read (chess:0.4)" in ask(page, "hello").inner_text()
    asked = sent.value.post_data_json
    assert (asked["plan"], asked["sparsity"], asked["force"]) == ("chess", 0.4, True)
    assert "active, measured\n61.3 %" in facts.inner_text()
    page.press("#dial", "Home")
    assert "100 %" in facts.inner_text()
    page.reload()
    page.locator("#dial-box").wait_for()
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "hello")
    assert sent.value.post_data_json["sparsity"] == 0
    page.select_option("#plan", "auto")
    page.press("#dial", "End")
    assert "unknown" in facts.inner_text()


def test_the_modules_that_know_nothing_of_the_page(visit: Open) -> None:
    turns, events, broken, half, far = visit().evaluate(
        """async (plan) => {
            const { asked } = await import('/page/conversation.js');
            const { events } = await import('/page/client.js');
            const { klAt, positionOf } = await import('/page/dial.js');
            const turn = (role, content) => ({ role, content });
            const bytes = (text) => new ReadableStream({ start(control) {
                for (const each of new TextEncoder().encode(text)) {
                    control.enqueue(new Uint8Array([each]));
                }
                control.close();
            } });
            const read = async (text) => {
                const found = [];
                for await (const each of events(bytes(text))) found.push(each);
                return found;
            };
            const talk = [turn('user', 'a'), turn('assistant', ''), turn('user', 'b')];
            return [
                asked(talk, 'c'),
                await read('data: {"a": "ä€"}\\n\\ndata: [1]\\n\\ndata: [DONE]\\n\\n'),
                await read('data: 1\\n\\n').catch((error) => error.message),
                klAt(plan, 0.1),
                positionOf('chess@0.9', [plan]),
            ];
        }""",
        PLANS["data"][1],
    )
    assert turns == [{"role": "system", "content": "c"}, {"role": "user", "content": "a\n\nb"}]
    assert events == [{"a": "ä€"}, [1]]
    assert "broke off" in broken
    assert half == pytest.approx(0.02)
    assert far == {"plan": "chess", "sparsity": 0.6}


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


def test_a_server_with_a_key_is_unlocked(visit: Open) -> None:
    page = visit(key="")
    for key in ("wrong", KEY):
        page.fill("#key", key)
        page.press("#key", "Enter")
        if key == "wrong":
            page.get_by_text("That key does not fit.").wait_for()
    page.locator("#model", has_text=NAME).wait_for()
    page.locator("#unlock").wait_for(state="hidden")


def test_what_the_server_refuses_is_told(visit: Open) -> None:
    page = visit()
    answer = ask(page, "hello", top_p=7)
    assert "top_p" in answer.get_by_role("alert").inner_text()


def test_hostile_markdown_does_nothing(visit: Open) -> None:
    page = visit()
    answer_with(page, HOSTILE)
    ask(page, "hello")
    answer_with(page, "_a_" * 20_000)  # Markdown of it would take seconds
    assert ask(page, "hello").locator("em").count() == 0
    answer = page.locator("article.assistant").first
    assert page.evaluate("window.hit") is None
    assert answer.locator("script, img, svg, style, iframe, form, input, [id]").count() == 0
    links = answer.locator("a").evaluate_all("found => found.map((each) => each.href)")
    assert links == ["", "https://example.org/"]
    assert "<script>window.hit = 1</script>" in answer.inner_text()
    assert answer.locator("pre").inner_text().rstrip() == "<b>bold</b>"


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
