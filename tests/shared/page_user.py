"""What a user does with the server's page, by Playwright: asks, looks at what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Open = Callable[..., Any]  # (scheme="light", width=1280, key=KEY) -> a page of Playwright
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
