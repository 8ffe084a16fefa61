"""Answers in OpenAI's shapes: whole ones, chunks of a stream, usage, log-probabilities.

Data to data. Knows nothing of HTTP and nothing of how a token was chosen.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from sparity_edge.generation.results import Completion, Statistics, Step
from sparity_edge.text.answer_parts import AnswerPart, AnswerReader
from sparity_edge.text.tool_calls.call import ToolCall

FINISH = {"loop": "stop"}  # what OpenAI has no word for
Show = Callable[[int], str]


class ChatAnswer:
    """Shapes of /v1/chat/completions.

    Args:
        model: its name.
        show: the text of a token.
        logprobs: whether they were asked for.
        n: choices of each prompt.
        with_reasoning: whether reasoning that is told apart from content is part of the answer.
    """

    prefix, whole, part = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def __init__(
        self, model: str, show: Show, logprobs: bool, n: int, *, with_reasoning: bool = True
    ) -> None:
        self._show, self._logprobs, self._n = show, logprobs, n
        self._with_reasoning = with_reasoning
        self._readers: Sequence[AnswerReader] = ()
        self._calls: dict[int, int] = {}  # made so far by each choice that made some
        self._head = {
            "id": self.prefix + secrets.token_hex(12),
            "created": int(time.time()),
            "model": model,
        }

    def complete(self, completions: Sequence[Completion]) -> dict[str, Any]:
        """The whole answer.

        Args:
            completions: all choices; those of one prompt stand side by side.
        """
        choices = [
            {
                "index": index,
                **self._content(index, each),
                "logprobs": self._listed(each),
                "finish_reason": self._finish(index, each.finish_reason),
            }
            for index, each in enumerate(completions)
        ]
        stats = [each.stats for each in completions]
        return {
            **self._head,
            "object": self.whole,
            "choices": choices,
            "usage": usage(stats, self._n),
        }

    def chunk(self, index: int, step: Step, first: bool) -> dict[str, Any]:
        """One step of a stream.

        Args:
            index: of the choice.
            step: of its sequence.
            first: whether it is the choice's first, which tells the role.
        """
        logprobs = self._listed(Completion.of([step])) if self._logprobs else None
        choice = {
            "index": index,
            **self._delta(index, step, first),
            "logprobs": logprobs,
            "finish_reason": self._finish(index, step.finish_reason),
        }
        return {**self._head, "object": self.part, "choices": [choice]}

    def last(self, stats: Sequence[Statistics]) -> dict[str, Any]:
        """The chunk behind all others, with what the answer cost.

        Args:
            stats: of every choice; those of one prompt stand side by side.
        """
        return {**self._head, "object": self.part, "choices": [], "usage": usage(stats, self._n)}

    def read_by(self, readers: Sequence[AnswerReader]) -> None:
        """Tell reasoning and tool calls from content.

        Args:
            readers: of each choice.
        """
        self._readers = readers

    def _content(self, index: int, completion: Completion) -> dict[str, Any]:
        part = self._readers[index].push(completion.text, ended=True)
        message = self._parts(index, part)
        return {"message": {"role": "assistant", "content": None, "refusal": None, **message}}

    def _delta(self, index: int, step: Step, first: bool) -> dict[str, Any]:
        part = self._readers[index].push(step.text, ended=step.finish_reason is not None)
        delta = self._parts(index, part, streamed=True)
        if first:
            delta = {"role": "assistant", "content": "", **delta}
        return {"delta": delta}

    def _parts(self, index: int, part: AnswerPart, *, streamed: bool = False) -> dict[str, Any]:
        """A part in OpenAI's words; the content of a whole answer without calls is never null."""
        found: dict[str, Any] = {}
        if part.content or not (streamed or part.calls):
            found["content"] = part.content
        if part.reasoning and self._with_reasoning:
            found["reasoning_content"] = part.reasoning
        if part.calls:
            before = self._calls.get(index, 0)
            calls = [_call(each) for each in part.calls]
            if streamed:
                calls = [{"index": before + number, **each} for number, each in enumerate(calls)]
            found["tool_calls"] = calls
            self._calls[index] = before + len(calls)
        return found

    def _finish(self, index: int, reason: str | None) -> str | None:
        reason = reason and FINISH.get(reason, reason)
        return "tool_calls" if reason == "stop" and index in self._calls else reason

    def _listed(self, completion: Completion) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {"content": listed_logprobs(completion, self._show), "refusal": None}


class TextAnswer(ChatAnswer):
    """Shapes of /v1/completions."""

    prefix, whole, part = "cmpl-", "text_completion", "text_completion"

    def _content(self, _: int, completion: Completion) -> dict[str, Any]:
        return {"text": completion.text}

    def _delta(self, _: int, step: Step, __: bool) -> dict[str, Any]:
        return {"text": step.text}

    def _listed(self, completion: Completion) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        tokens = [self._show(token) for token in completion.token_ids]
        return {
            "tokens": tokens,
            "token_logprobs": list(completion.logprobs),
            "top_logprobs": [
                {self._show(token): value for token, value in likeliest.items()}
                for likeliest in completion.top_logprobs
            ],
        }


def listed_logprobs(completion: Completion, show: Show) -> list[dict[str, Any]]:
    """Log-probabilities of every token and of the likeliest ones in its place.

    Args:
        completion: that has them.
        show: the text of a token.
    """

    def entry(token: int, logprob: float | None) -> dict[str, Any]:
        text = show(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    places = zip(completion.token_ids, completion.logprobs, completion.top_logprobs, strict=True)
    return [
        {**entry(token, logprob), "top_logprobs": [entry(*each) for each in likeliest.items()]}
        for token, logprob, likeliest in places
    ]


def usage(stats: Sequence[Statistics], choices: int) -> dict[str, Any]:
    """Tokens, guesses, and the share of weights that was read, of all choices together.

    Args:
        stats: of every choice; those of one prompt stand side by side.
        choices: of each prompt, whose tokens count once.
    """
    generated = sum(each.generated_tokens for each in stats)
    prompts = stats[::choices]
    read = sum(each.prompt_tokens for each in prompts)
    drafted = sum(each.drafted_tokens for each in stats)
    accepted = sum(each.accepted_tokens for each in stats)
    active = sum(each.active_weight_fraction for each in stats) / len(stats)
    return {
        "prompt_tokens": read,
        "completion_tokens": generated,
        "total_tokens": read + generated,
        "completion_tokens_details": {  # of guesses that were read
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": drafted - accepted,
        },
        "prompt_tokens_details": {"cached_tokens": sum(each.cached_tokens for each in prompts)},
        "active_weight_fraction": round(active, 4),
    }


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
