"""Errors in the shapes of the protocols: OpenAI's, and Anthropic's under /v1/messages.

Data to data: what is wrong and which status that is others decide.
"""

from __future__ import annotations

from typing import Any

MOST_REPEATED = 60  # characters
ANTHROPIC = "/v1/messages"  # and all paths below it
OPENAI_KINDS = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}
ANTHROPIC_KINDS = {
    **OPENAI_KINDS,
    403: "permission_error",
    413: "request_too_large",
}


def error_body(
    status: int, sentence: str, field: str | None = None, *, path: str = ""
) -> dict[str, Any]:
    """An error as the protocol of a path has it.

    Args:
        status: of HTTP.
        sentence: what is wrong, and the remedy.
        field: of the request, where one is to blame.
        path: that was asked for.
    """
    if path == ANTHROPIC or path.startswith(f"{ANTHROPIC}/"):
        other = "api_error" if status >= 500 else "invalid_request_error"
        error = {"type": ANTHROPIC_KINDS.get(status, other), "message": sentence}
        return {"type": "error", "error": error}
    other = "server_error" if status >= 500 else "invalid_request_error"
    kind = OPENAI_KINDS.get(status, other)
    return {"error": {"message": sentence, "type": kind, "param": field, "code": None}}


def clipped(text: str) -> str:
    """A client's words as an answer may repeat them: not at any length, and written in UTF-8.

    Args:
        text: of a request.
    """
    text = text if len(text) <= MOST_REPEATED else text[: MOST_REPEATED - 3] + "..."
    return text.encode("utf-8", "replace").decode()
