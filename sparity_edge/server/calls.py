"""What a request asks of the model: prompts as token ids, parameters, sequences.

Every wrong value is an OptionError that names the field. Knows OpenAI's names of parameters and
ours; nothing of HTTP.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sparity_edge.errors import OptionError
from sparity_edge.generation.constraint.constraint import Constraint
from sparity_edge.generation.loaded_model import LoadedModel, Prompt
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.sequence import DecodingSequence, sequence_of
from sparity_edge.server.bodies import MOST_CHOICES, TextBody
from sparity_edge.server.body import Body
from sparity_edge.server.constraints import constraint_of

SAME_NAME = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "max_tokens",
    "ignore_eos",
)
COMPLETION_TOKENS = 16  # of /v1/completions where max_tokens is not there, as OpenAI has it


def text_sequences(loaded: LoadedModel, body: TextBody) -> list[DecodingSequence]:
    """The sequences that texts to continue ask for, `n` of each prompt.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.

    Raises:
        OptionError, ContextError: it cannot be honoured.
    """
    more = {"logprobs": body.logprobs is not None, "top_logprobs": body.logprobs or 0}
    if body.max_tokens is None:
        more["max_tokens"] = COMPLETION_TOKENS
    prompts = prompts_of(body.prompt)
    if not prompts or len(prompts) * body.n > MOST_CHOICES:
        raise OptionError(
            f"prompt and n ask for {len(prompts) * body.n} texts; ask for 1 to {MOST_CHOICES}."
        )
    params, constraint = params_of(loaded, body, more), constraint_of(loaded, body)
    return _choices(loaded, prompts, body.n, params, constraint)


def prompts_of(prompt: str | Sequence[Any]) -> list[Prompt]:
    """The texts of a field that may be one text or several, as strings or as token ids.

    Args:
        prompt: of a request.
    """
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        return [prompt]
    return list(prompt)


def _choices(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    count: int,
    params: SamplingParams,
    constraint: Constraint | None,
) -> list[DecodingSequence]:
    found = []
    for prompt in prompts:
        ids = loaded.encode(prompt)  # once for all choices
        for own in seeded(params, count):
            found.append(sequence_of(loaded, ids, own, constraint=constraint))
    return found


def seeded(params: SamplingParams, count: int) -> list[SamplingParams]:
    """Parameters of some choices: each has a seed of its own, or all would be one.

    Args:
        params: of the first.
        count: of the choices.
    """
    if params.seed is None:
        return [params] * count
    return [dataclasses.replace(params, seed=params.seed + index) for index in range(count)]


def params_of(loaded: LoadedModel, body: Body, more: dict[str, Any]) -> SamplingParams:
    """The sampling parameters that a body asks for; what it leaves open is the model's own.

    Args:
        loaded: the model.
        body: whose fields are looked at by the names of parameters.
        more: parameters that are called otherwise there.

    Raises:
        OptionError: one is out of its range.
    """
    given = {name: getattr(body, name, None) for name in SAME_NAME}
    given = {name: value for name, value in given.items() if value is not None}
    biases = getattr(body, "logit_bias", None)
    if biases is not None:
        given["logit_bias"] = _biases(biases)
    return dataclasses.replace(loaded.default_params, **{**given, **more})


def _biases(biases: dict[str, float]) -> dict[int, float]:
    try:
        return {int(token): value for token, value in biases.items()}
    except ValueError:
        raise OptionError("logit_bias names what is no token id; use whole numbers.") from None
