"""The body of /v1/embeddings, each field checked; what is not served is refused by its name."""

from __future__ import annotations

from typing import Literal

from sparity_edge.server.body import Body


class EmbeddingsBody(Body):
    """POST /v1/embeddings; `pooling` and `normalize` are ours."""

    model: str | None = None
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    pooling: Literal["mean", "last"] = "mean"
    normalize: bool = True
    user: str | None = None  # not looked at
