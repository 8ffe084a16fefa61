"""sparity-edge as a model of EleutherAI's lm-evaluation-harness (the extra `eval`).

    python -m sparity_edge.lm_eval_adapter run --model sparity-edge \\
        --model_args model=./my-model,sparsity=0.25 --tasks hellaswag --limit 100

takes the place of the command `lm_eval` and understands all of its options; with
--apply_chat_template, variables of the template are given as template_args=enable_thinking=false,
several as template_args={"enable_thinking":false,"effort":"low"}. Vectors are sparsified
at every position but the first four, prompts included, so that likelihoods show what a plan costs;
`sparse_prefill=False` leaves prompts of generation dense, as in a chat. Knows nothing of tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    from tqdm import tqdm
except ImportError as error:
    raise ImportError(
        "lm-eval is not installed; get it with: pip install 'sparity-edge[eval]'"
    ) from error

from sparity_edge.choices import DEFAULT_MODEL
from sparity_edge.errors import OptionError
from sparity_edge.generation.generator import Generator
from sparity_edge.generation.params import SamplingParams
from sparity_edge.quality.scoring import score
from sparity_edge.text.chat_template import plain_variables
from sparity_edge.text.template_args import read_variables, shown_variables

DEFAULT_MAX_TOKENS = 256  # tokens, as transformers' adapter has it
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
CUTS = ("top_k", "top_p", "min_p", "seed")  # of the draw, where a task samples
PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")
# Options of transformers that tasks spell out although this is how texts are made here anyway.
NEUTRAL = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "no_repeat_ngram_size": 0,
    "use_cache": True,
}
KNOWN = {"until", "do_sample", "temperature", *CUTS, *PENALTIES, *NEUTRAL, *LENGTHS}


@register_model("sparity-edge")
class SparityEdge(TemplateLM):  # type: ignore[misc]
    """A Generator behind the harness's interface, one sequence at a time.

    Args:
        model: as for `Generator.load`, and so are all further arguments.
        max_length: tokens of a window; None: the context.
        template_args: variables of the chat template: a mapping, a JSON object, or NAME=VALUE.
        batch_size, max_batch_size, device: what the harness hands to every model; without effect.

    Raises:
        SparityError: the model cannot be loaded as asked.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        max_length: int | None = None,
        sparse_prefill: bool = True,
        template_args: Mapping[str, Any] | str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **loading: Any,
    ) -> None:
        super().__init__()
        del batch_size, max_batch_size, device
        self.template_args = plain_variables(read_variables(template_args))
        loading.setdefault("force", True)  # what a plan costs is to be found out
        self.generator = Generator.load(str(model), sparse_prefill=sparse_prefill, **loading)
        self.max_length = max_length or self.generator.max_context
        tokenizer = self.generator.tokenizer
        begin = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
        ends = (*tokenizer.eos_token_ids, *self.generator.config.eos_token_ids)
        if not begin and not ends:
            raise OptionError("The model names neither a first nor a last token; it needs one.")
        self._begin: int = (*begin, *ends)[0]
        self._end: int = (*ends, *begin)[0]

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._end

    @property
    def prefix_token_id(self) -> int:
        """What stands in front of a text that has no context."""
        return self._begin

    @property
    def tokenizer_name(self) -> str:
        """Tells request caches of different tokenizers, and of other variables, apart."""
        return f"{self.generator.path} {shown_variables(self.template_args)}".rstrip()

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """Ids of a text, without a second BOS where the text spells it out."""
        tokenizer = self.generator.tokenizer
        if add_special_tokens is None:
            begin = tokenizer.decode([self.prefix_token_id], skip_special_tokens=False)
            add_special_tokens = not (begin and string.startswith(begin))
        return tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages as the model's own template writes them."""
        return self.generator.tokenizer.render_chat(
            chat_history,
            add_generation_prompt=add_generation_prompt,
            template_args=self.template_args,
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's source, for the record of a run."""
        return self.generator.tokenizer.chat_template if chat_template else None

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: object,
    ) -> list[tuple[float, bool]]:
        """Score (texts, context, continuation); neighbours with one context read it once."""
        results: list[tuple[float, bool]] = []
        with tqdm(total=len(requests), desc="loglikelihood", disable=disable_tqdm) as bar:
            for texts, context, continuations in _by_context(requests, self.max_length):
                for text, each in zip(texts, score(self.generator, context, continuations)):
                    results.append((each.logprob, each.greedy))
                    if text is not None:
                        self.cache_hook.add_partial("loglikelihood", text, results[-1])
                    bar.update()
        return results

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows if they are longer than the context."""
        results = []
        for request in tqdm(requests, desc="loglikelihood_rolling", disable=disable_tqdm):
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            scores = self._loglikelihood_tokens(pairs, disable_tqdm=True)
            results.append(math.fsum(logprob for logprob, _ in scores))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), results[-1])
        return results

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue texts up to the first stop string, greedily unless the task samples."""
        results = []
        for request in tqdm(requests, desc="generate_until", disable=disable_tqdm):
            text, options = request.args
            params = sampling_params(options)
            room = self.max_length - (params.max_tokens or 0)
            if room < 1:
                raise OptionError(
                    f"{params.max_tokens} tokens of completion leave no room for the prompt in "
                    f"{self.max_length}; lower max_gen_toks."
                )
            # What does not fit is cut off at the beginning, as transformers' adapter does.
            ids = self.tok_encode(text)[-room:]
            results.append(self.generator.generate(ids, params).text)
            self.cache_hook.add_partial("generate_until", request.args, results[-1])
        return results


def _by_context(
    requests: list[tuple[tuple[str, str] | None, list[int], list[int]]], room: int
) -> list[tuple[list[tuple[str, str] | None], list[int], list[list[int]]]]:
    """(texts, context, continuations) of neighbouring requests that share a context.

    As all but the last token of a continuation are read, both may together exceed the room by one;
    of what is longer the beginning is cut off.
    """
    groups: list[tuple[list[tuple[str, str] | None], list[int], list[list[int]]]] = []
    for texts, context, continuation in requests:
        excess = max(0, len(context) + len(continuation) - 1 - room)
        if excess >= len(context):
            raise OptionError(
                f"A continuation of {len(continuation)} tokens does not fit into {room}."
            )
        context = context[excess:]
        if not groups or groups[-1][1] != context:
            groups.append(([], context, []))
        groups[-1][0].append(texts)
        groups[-1][2].append(continuation)
    return groups


def sampling_params(options: dict[str, Any]) -> SamplingParams:
    """What a task asks of generation.

    Raises:
        OptionError: an option is unknown, or its value out of range.
    """
    if unknown := sorted(set(options) - KNOWN):
        raise OptionError(f"sparity-edge does not know the option {unknown[0]!r} of a task.")
    for name, neutral in NEUTRAL.items():
        if (value := options.get(name)) not in (None, neutral):
            raise OptionError(
                f"{name}={value!r} of a task is not supported; use {neutral!r} or leave it out."
            )
    lengths = [options[name] for name in LENGTHS if options.get(name) is not None]
    until = options.get("until") or []
    common: dict[str, Any] = {
        "max_tokens": int(lengths[0]) if lengths else DEFAULT_MAX_TOKENS,
        "stop": tuple(filter(None, [until] if isinstance(until, str) else until)),
        **_given(options, PENALTIES),
    }
    warm = float(options.get("temperature") or 0) > 0
    if not options.get("do_sample", warm):
        return SamplingParams(temperature=0, **common)
    cuts = {"top_k": 0, "top_p": 1.0, **_given(options, CUTS)}
    return SamplingParams(temperature=float(options.get("temperature", 1.0)), **common, **cuts)


def _given(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of some options that a task sets."""
    return {name: options[name] for name in names if options.get(name) is not None}


def main() -> None:
    """The command line of the harness, with this model registered."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
