"""Answers in Anthropic's shapes: whole ones, and the events of a stream.

Data to data. Knows nothing of HTTP and nothing of how a token was chosen.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.server.sending.sse import Event

PING: Event = {"type": "ping"}


class MessageAnswer:
    """Shapes of /v1/messages.

    Args:
        model: its name.
        sequence: that is decoded; looked at for what ended it and what it cost.
        max_tokens: that the request allows.
    """

    def __init__(self, model: str, sequence: DecodingSequence, max_tokens: int) -> None:
        self._model, self._sequence, self._max_tokens = model, sequence, max_tokens
        self._id = f"msg_{secrets.token_hex(12)}"

    def complete(self, text: str) -> Event:
        """The whole answer, once the sequence is over.

        Args:
            text: of it.
        """
        return self._message([{"type": "text", "text": text}], self._ending())

    def begin(self) -> Iterator[Event]:
        """Events in front of the text; those that are streamed before anything is known of it."""
        nothing = {"stop_reason": None, "stop_sequence": None}
        yield {"type": "message_start", "message": self._message([], nothing)}
        block = {"type": "text", "text": ""}
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        yield PING

    def go_on(self, step: Step) -> Iterator[Event]:
        """Events of one step; behind the last one those that end the stream.

        Args:
            step: of the sequence.
        """
        if step.text:
            delta = {"type": "text_delta", "text": step.text}
            yield {"type": "content_block_delta", "index": 0, "delta": delta}
        if step.finish_reason is not None:
            yield {"type": "content_block_stop", "index": 0}
            yield {"type": "message_delta", "delta": self._ending(), "usage": self._usage()}
            yield {"type": "message_stop"}

    def _message(self, content: list[Event], ending: Event) -> Event:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            **ending,
            "usage": self._usage(),
        }

    def _ending(self) -> Event:
        sequence = self._sequence
        if sequence.stop_string is not None:
            reason = "stop_sequence"
        elif sequence.finish_reason == "length":
            full = sequence.generated < self._max_tokens
            reason = "model_context_window_exceeded" if full else "max_tokens"
        else:
            reason = "end_turn"
        return {"stop_reason": reason, "stop_sequence": sequence.stop_string}

    def _usage(self) -> Event:
        """So far. Tokens that were found in a KV cache count apart, as Anthropic has it."""
        stats = self._sequence.meter.statistics(self._sequence.generated)
        return {
            "input_tokens": stats.prompt_tokens - stats.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": stats.cached_tokens,
            "output_tokens": stats.generated_tokens,
            "active_weight_fraction": round(stats.active_weight_fraction, 4),
        }
