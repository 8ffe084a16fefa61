"""Answers in the shapes of OpenAI's Responses: whole ones, and the events of a stream.

Data to data. Knows nothing of HTTP and nothing of how a token was chosen.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.results import Completion, Statistics, Step
from sparity_edge.server.answers import Show, listed_logprobs
from sparity_edge.server.responses.bodies import ResponsesBody
from sparity_edge.server.sending.sse import Event


class ResponseAnswer:
    """Shapes of /v1/responses.

    Args:
        model: its name.
        body: of the request; parts of it are repeated in the answer.
        params: that hold.
        show: the text of a token.
    """

    def __init__(self, model: str, body: ResponsesBody, params: SamplingParams, show: Show) -> None:
        self._model, self._body, self._params, self._show = model, body, params, show
        self._id = f"resp_{secrets.token_hex(12)}"
        self._item_id = f"msg_{secrets.token_hex(12)}"
        self._at = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        self._created = int(time.time())
        self._steps: list[Step] = []
        self._events = 0

    def complete(self, completion: Completion) -> dict[str, Any]:
        """The whole answer.

        Args:
            completion: of the sequence.
        """
        cut = completion.finish_reason == "length"
        status = "incomplete" if cut else "completed"
        part = _part(completion.text, self._listed(completion))
        return {
            **self._response(status),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._item(status, [part])],
            "usage": _usage(completion.stats),
        }

    def begin(self) -> Iterator[Event]:
        """Events in front of the text."""
        under_way = self._response("in_progress")
        yield self._event("created", response=under_way)
        yield self._event("in_progress", response=under_way)
        item = self._item("in_progress", [])
        yield self._event("output_item.added", output_index=0, item=item)
        yield self._event("content_part.added", **self._at, part=_part("", []))

    def go_on(self, step: Step) -> Iterator[Event]:
        """Events of one step; behind the last one those that end the stream.

        Args:
            step: of the sequence.
        """
        self._steps.append(step)
        found = self._listed(Completion.of([step]))
        if step.text or found:
            yield self._event("output_text.delta", **self._at, delta=step.text, logprobs=found)
        if step.finish_reason is None:
            return
        completion = Completion.of(self._steps)
        whole = self.complete(completion)
        (part,) = whole["output"][0]["content"]
        told = {"text": part["text"], "logprobs": part["logprobs"]}
        yield self._event("output_text.done", **self._at, **told)
        yield self._event("content_part.done", **self._at, part=part)
        yield self._event("output_item.done", output_index=0, item=whole["output"][0])
        yield self._event(whole["status"], response=whole)

    def failed(self, sentence: str) -> Event:
        """The event that ends a stream which cannot go on.

        Args:
            sentence: why.
        """
        error = {"code": "server_error", "message": sentence}
        return self._event("failed", response={**self._response("failed"), "error": error})

    def _event(self, kind: str, **content: Any) -> Event:
        self._events += 1
        return {"type": f"response.{kind}", "sequence_number": self._events - 1, **content}

    def _response(self, status: str) -> dict[str, Any]:
        body, params = self._body, self._params
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self._model,
            "output": [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": params.temperature,
            "text": {"format": _format(body)},
            "tool_choice": body.tool_choice or "auto",
            "tools": [],
            "top_logprobs": params.top_logprobs,
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": body.user,
        }

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _listed(self, completion: Completion) -> list[dict[str, Any]]:
        return listed_logprobs(completion, self._show) if self._params.logprobs else []


def _part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _format(body: ResponsesBody) -> dict[str, Any]:
    asked = None if body.text is None else body.text.format
    return {"type": "text"} if asked is None else asked.model_dump(by_alias=True)


def _usage(stats: Statistics) -> dict[str, Any]:
    """Tokens, and the share of weights that was read."""
    return {
        "input_tokens": stats.prompt_tokens,
        "input_tokens_details": {"cached_tokens": stats.cached_tokens},
        "output_tokens": stats.generated_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": stats.prompt_tokens + stats.generated_tokens,
        "active_weight_fraction": round(stats.active_weight_fraction, 4),
    }
