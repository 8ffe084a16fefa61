"""Which error becomes which status: handlers that an application has for what is not served.

Every refusal is one sentence in the shape of its path's protocol, see `shapes`.
"""

from __future__ import annotations

import json

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from sparity_edge.errors import SparityError
from sparity_edge.server.errors.shapes import clipped, error_body
from sparity_edge.server.tickets import UnavailableError

RETRY_AFTER = "2"  # seconds


def add_refusals(app: FastAPI) -> None:
    """Have an application answer errors.

    Args:
        app: that raises SparityError, HTTPException and RequestValidationError.
    """
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(SparityError, _refused)
    app.add_exception_handler(HTTPException, _unknown)


def demand_model(asked: str | None, name: str) -> None:
    """Refuse a request for another model.

    Args:
        asked: the name in the request; None or empty: any.
        name: of the model that is served.

    Raises:
        HTTPException: 404, another one was asked for.
    """
    if asked not in (None, "", name):
        raise HTTPException(404, f"There is no model {clipped(asked)!r} here, but {name!r}.")


def status_of(error: BaseException) -> int:
    """The HTTP status that an error of ours means.

    Args:
        error: a SparityError; what else there is counts as a fault of the server.
    """
    if isinstance(error, UnavailableError):
        return 503
    return 400 if isinstance(error, SparityError) and isinstance(error, ValueError) else 500


def _answer(
    request: Request,
    status: int,
    sentence: str,
    field: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    body = error_body(status, sentence, field, path=request.url.path)
    return JSONResponse(body, status, headers)


async def _unreadable(request: Request, error: Exception) -> Response:
    """What is wrong with a body: the innermost fault, with the name of its field and its value."""
    assert isinstance(error, RequestValidationError)
    fault = max(error.errors(), key=lambda each: len(each["loc"]))  # the first of several
    kind, place = fault["type"], [each for each in fault["loc"][1:] if not _is_type(each)]
    if kind == "json_invalid" or not place:
        sentence = "The body is no JSON object; send one, and Content-Type: application/json."
        return _answer(request, 400, sentence)
    field = clipped(".".join(str(each) for each in place))
    value = clipped(json.dumps(fault.get("input"), default=str))
    words = {"extra_forbidden": "is not served here; leave it out", "missing": "is missing; add it"}
    reason = words.get(kind, f"is refused: {fault['msg']}")
    what = field if kind == "missing" else f"{field}={value}"
    return _answer(request, 400, f"{what} {reason}.", field)


def _is_type(part: object) -> bool:
    """Whether a part of a fault's place is one of the types that a field may have."""
    return isinstance(part, str) and (part == "str" or "[" in part)


async def _refused(request: Request, error: Exception) -> Response:
    status = status_of(error)
    return _answer(
        request, status, str(error), None, {"Retry-After": RETRY_AFTER} if status == 503 else None
    )


async def _unknown(request: Request, error: Exception) -> Response:
    """What the framework refuses in words without a remedy, and a model of another name."""
    assert isinstance(error, HTTPException)
    status, path = error.status_code, clipped(request.url.path)
    sentences = {
        "Not Found": f"There is nothing at {path!r}; chats are at /v1/chat/completions.",
        "Method Not Allowed": f"{path!r} does not take {clipped(request.method)}; use the other "
        "one of GET and POST.",
        "There was an error parsing the body": "The body is no JSON that can be read: it is "
        "nested too deeply, or has a number of thousands of digits; send another.",
    }
    sentence = sentences.get(str(error.detail), str(error.detail))
    headers = None if error.headers is None else dict(error.headers)
    return _answer(request, status, sentence, None, headers)
