"""Answers in OpenAI's shapes: whole ones, chunks of a stream, usage, log-probabilities.

Data to data. Knows nothing of HTTP and nothing of how a token was chosen.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from sparity_edge.generation.results import Completion, Statistics, Step

FINISH = {"loop": "stop"}  # what OpenAI has no word for
Show = Callable[[int], str]


class ChatAnswer:
    """Shapes of /v1/chat/completions.

    Args:
        model: its name.
        show: the text of a token.
        logprobs: whether they were asked for.
        n: choices of each prompt.
    """

    prefix, whole, part = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def __init__(self, model: str, show: Show, logprobs: bool, n: int) -> None:
        self._show, self._logprobs, self._n = show, logprobs, n
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
                **self._content(each),
                "logprobs": self._listed(each),
                "finish_reason": _finish(each.finish_reason),
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
            **self._delta(step, first),
            "logprobs": logprobs,
            "finish_reason": _finish(step.finish_reason),
        }
        return {**self._head, "object": self.part, "choices": [choice]}

    def last(self, stats: Sequence[Statistics]) -> dict[str, Any]:
        """The chunk behind all others, with what the answer cost.

        Args:
            stats: of every choice; those of one prompt stand side by side.
        """
        return {**self._head, "object": self.part, "choices": [], "usage": usage(stats, self._n)}

    def _content(self, completion: Completion) -> dict[str, Any]:
        return {
            "message": {"role": "assistant", "content": completion.text, "refusal": None},
        }

    def _delta(self, step: Step, first: bool) -> dict[str, Any]:
        role = {"role": "assistant"} if first else {}
        return {"delta": {**role, "content": step.text} if step.text or first else {}}

    def _listed(self, completion: Completion) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {"content": listed_logprobs(completion, self._show), "refusal": None}


class TextAnswer(ChatAnswer):
    """Shapes of /v1/completions."""

    prefix, whole, part = "cmpl-", "text_completion", "text_completion"

    def _content(self, completion: Completion) -> dict[str, Any]:
        return {"text": completion.text}

    def _delta(self, step: Step, _: bool) -> dict[str, Any]:
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


def _finish(reason: str | None) -> str | None:
    return None if reason is None else FINISH.get(reason, reason)
