"""Answers in Anthropic's shapes: whole ones, and the events of a stream.

Data to data. Knows nothing of HTTP and nothing of how a token was chosen.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.server.sending.sse import Event
from sparity_edge.text.answer_parts import AnswerReader
from sparity_edge.text.tool_calls.call import ToolCall, loads

PING: Event = {"type": "ping"}


class MessageAnswer:
    """Shapes of /v1/messages.

    Args:
        model: its name.
        sequence: that is decoded; looked at for what ended it and what it cost.
        reader: tells calls of tools from text.
        max_tokens: that the request allows.
        tools: whether there are some; an answer may then have no text at all.
    """

    def __init__(
        self,
        model: str,
        sequence: DecodingSequence,
        reader: AnswerReader,
        max_tokens: int,
        tools: bool,
    ) -> None:
        self._model, self._sequence, self._max_tokens = model, sequence, max_tokens
        self._reader, self._tools = reader, tools
        self._id = f"msg_{secrets.token_hex(12)}"
        self._blocks = 0  # that were begun in a stream
        self._open = False  # whether the last of them goes on; it is a text then
        self._called = False

    def complete(self, text: str) -> Event:
        """The whole answer, once the sequence is over.

        Args:
            text: of it.
        """
        part = self._reader.push(text, ended=True)
        calls = [_call(each) for each in part.calls]
        self._called = bool(calls)
        texts = [{"type": "text", "text": part.content}] if part.content or not calls else []
        return self._message([*texts, *calls], self._ending())

    def begin(self) -> Iterator[Event]:
        """Events in front of the text; those that are streamed before anything is known of it."""
        nothing = {"stop_reason": None, "stop_sequence": None}
        yield {"type": "message_start", "message": self._message([], nothing)}
        if not self._tools:
            yield from self._text_block()
        yield PING

    def go_on(self, step: Step) -> Iterator[Event]:
        """Events of one step; behind the last one those that end the stream.

        Args:
            step: of the sequence.
        """
        over = step.finish_reason is not None
        part = self._reader.push(step.text, ended=over)
        if part.content:
            yield from self._text_block()
            yield self._delta({"type": "text_delta", "text": part.content})
        for call in part.calls:
            self._called = True
            yield from self._end_block()
            yield self._begin_block({**_call(call), "input": {}})
            yield self._delta({"type": "input_json_delta", "partial_json": call.arguments})
            yield from self._end_block()
        if over:
            if not self._blocks:
                yield from self._text_block()
            yield from self._end_block()
            yield {"type": "message_delta", "delta": self._ending(), "usage": self._usage()}
            yield {"type": "message_stop"}

    def _text_block(self) -> Iterator[Event]:
        """Begin one, unless one goes on."""
        if not self._open:
            yield self._begin_block({"type": "text", "text": ""})

    def _begin_block(self, block: Event) -> Event:
        self._blocks, self._open = self._blocks + 1, True
        return {"type": "content_block_start", "index": self._blocks - 1, "content_block": block}

    def _delta(self, delta: Event) -> Event:
        return {"type": "content_block_delta", "index": self._blocks - 1, "delta": delta}

    def _end_block(self) -> Iterator[Event]:
        if self._open:
            self._open = False
            yield {"type": "content_block_stop", "index": self._blocks - 1}

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
        elif self._called:
            reason = "tool_use"
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


def _call(call: ToolCall) -> Event:
    """A call as a block."""
    made = f"toolu_{secrets.token_hex(12)}"
    return {"type": "tool_use", "id": made, "name": call.name, "input": loads(call.arguments)}
