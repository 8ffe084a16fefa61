"""The OpenAPI document of an application: what its framework finds, and how errors look here.

The framework describes bodies; that errors are one sentence in their protocol's shape, streams are
events, and a key may be needed, it cannot know.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from sparity_edge.server.errors.shapes import ANTHROPIC

JSON = "application/json"
TEXT: dict[str, Any] = {"type": "string"}
ERRORS: dict[str, dict[str, Any]] = {
    "OpenAIError": {
        "error": {
            "type": "object",
            "properties": {"message": TEXT, "type": TEXT, "param": {}, "code": {}},
            "required": ["message", "type"],
        }
    },
    "AnthropicError": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "properties": {"message": TEXT, "type": TEXT},
            "required": ["message", "type"],
        },
    },
}
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def add_document(app: FastAPI) -> None:
    """Have an application describe itself.

    Args:
        app: with all of its routes.
    """
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not made:
            made.update(get_openapi(title=app.title, version=app.version, routes=app.routes))
            _complete(made)
        return made

    app.openapi = document  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # the framework's, never sent
        schemas.pop(name, None)
    for name, properties in ERRORS.items():
        required = list(properties)
        schemas[name] = {"type": "object", "properties": properties, "required": required}
    parts["securitySchemes"] = KEYS
    document["security"] = [{}, *({name: []} for name in KEYS)]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete_operation(path, operation, schemas)


def _complete_operation(path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    answers = operation["responses"]
    answers.pop("422", None)  # a body that is wrong is a 400
    name = "AnthropicError" if path.startswith(ANTHROPIC) else "OpenAIError"
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    answers["4XX"] = {"description": "Refused: what is wrong, and the remedy", "content": content}
    answers["5XX"] = {"description": "Not available, or a fault", "content": content}
    body = operation.get("requestBody", {}).get("content", {}).get(JSON, {}).get("schema", {})
    fields = schemas.get(body.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
    if "stream" in fields:
        answers["200"]["content"]["text/event-stream"] = {"schema": TEXT}
