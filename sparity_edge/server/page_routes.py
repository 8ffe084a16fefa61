"""The page that a browser is shown at `/`: fixed files of the package, under a strict policy.

What is served is a list of names that stands here; nothing of a request reaches the file system.
The page is a client like any other: it knows the server's routes, and the server nothing of it.
"""

from __future__ import annotations

from importlib import resources

from fastapi import FastAPI
from fastapi.responses import Response

FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        (
            "answering.js",
            "client.js",
            "conversation.js",
            "dial.js",
            "files.js",
            "markdown.js",
            "messages.js",
            "page.js",
            "settings.js",
            "storage.js",
            "vendor/marked.js",
            "vendor/purify.js",
        ),
        "text/javascript; charset=utf-8",
    ),
}
PATHS = {"/" if name == "index.html" else f"/page/{name}": name for name in FILES}
# What a model writes is shown, and may be hostile: nothing runs or loads but what stands above.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # a newer version of the package has other files
}


def add_page(app: FastAPI) -> None:
    """Serve the page and its files.

    Args:
        app: gets a route for each of them.
    """
    for path, name in PATHS.items():
        _add_file(app, path, name)


def _add_file(app: FastAPI, path: str, name: str) -> None:
    content = (resources.files("sparity_edge.server") / "page" / name).read_bytes()

    @app.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(content, media_type=FILES[name], headers=HEADERS)
