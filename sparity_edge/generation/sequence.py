"""DecodingSequence: one sequence being decoded, from logits to steps, until something ends it.

Each has its own sampler, stop strings and statistics, so that several can be made side by side.
The class knows nothing of models: who reads the ids and times it tells the meter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from sparity_edge.arrays import Floats
from sparity_edge.errors import ContextError, OptionError
from sparity_edge.generation.constraint.constraint import Constraint
from sparity_edge.generation.loaded_model import LoadedModel, Prompt
from sparity_edge.generation.logits_processors import LogitsProcessor
from sparity_edge.generation.loops import LoopDetector
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.results import Meter, Step
from sparity_edge.generation.sampler import Sampler
from sparity_edge.generation.stop_strings import StopStrings
from sparity_edge.logits import logprob_of, top_logprobs
from sparity_edge.model.screened_head import Ids, Wanted
from sparity_edge.text.tokenizer import Tokenizer

# A token, its log-probability if it is known, and the likeliest tokens with theirs.
Choice = tuple[int, float | None, dict[int, float]]


class DecodingSequence:
    """A prompt and what follows it.

    Args:
        ids: of the prompt.
        params: how tokens are chosen, and what ends the sequence.
        tokenizer: gives the text.
        sampler: draws tokens.
        end_ids: tokens that end a text.
        max_context: positions of the KV cache, which prompt and completion share.
        constraint: what the text must follow; None: nothing.
        shown: special tokens that are part of the text.
        ends: told each piece of text; True: the sequence ends behind it.
    """

    def __init__(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        tokenizer: Tokenizer,
        sampler: Sampler,
        end_ids: Collection[int],
        max_context: int,
        constraint: Constraint | None = None,
        shown: Collection[str] = (),
        ends: Callable[[str], bool] | None = None,
    ) -> None:
        self.ids = list(ids)  # of the prompt and of what follows it
        self.meter = Meter(len(ids))
        self.generated = 0
        self.finish_reason: str | None = None
        self._params = params
        self._decoder = tokenizer.stream(context=ids, shown=shown)
        self._stops, self._ends = StopStrings(params.stop), ends
        self._sampler = sampler
        self._end_ids = () if params.ignore_eos else end_ids
        self._max_context = max_context
        self._loops = LoopDetector() if params.stop_loops else None
        self._constraint = None if constraint is None else constraint.begin()

    @property
    def room(self) -> int:
        """Tokens that can follow those so far, unless something else ends the sequence."""
        left = self._max_context - len(self.ids)
        most = self._params.max_tokens
        return left if most is None else min(left, most - self.generated)

    @property
    def stop_string(self) -> str | None:
        """The stop string that has ended the sequence; None: none has."""
        return self._stops.found

    def wanted(self, guesses: Sequence[int] = ()) -> Wanted | None:
        """Which logits the next token depends on, behind some guesses of others; None: all."""
        mask = None
        if self._constraint is not None:
            forced = self._constraint.forced(len(guesses) + 1)
            if list(guesses) != forced[: len(guesses)]:
                return None  # what may come behind other guesses is not known
            if len(forced) > len(guesses):
                return self._sampler.wanted_of_none
            mask = self._constraint.mask()
        ids = [*self.ids, *guesses] if guesses else self.ids
        return self._sampler.wanted(ids, self.generated + len(guesses), mask)

    def choose(self, logits: Floats, exact: Ids | None = None) -> Choice:
        """Of the logits (vocab_size,) after all ids: token, log-probability, and the likeliest.

        Args:
            logits: of all ids.
            exact: those that are known, as `wanted` asked for them; None: all.
        """
        likeliest = top_logprobs(logits, self._params.top_logprobs)
        mask = None
        if self._constraint is not None:
            for token in self._constraint.forced(1):
                asked = self._params.logprobs or self._params.top_logprobs
                return token, logprob_of(logits, token) if asked else None, likeliest
            mask = self._constraint.mask()
        return *self._sampler.sample(logits, self.ids, self.generated, exact, mask), likeliest

    @property
    def constrained(self) -> bool:
        """Whether it follows a schema, regex or grammar."""
        return self._constraint is not None

    def forced(self, most: int) -> list[int]:
        """The tokens that must come next, whatever the logits are.

        Args:
            most: of them that are asked for.
        """
        return [] if self._constraint is None else self._constraint.forced(most)

    def take(self, token: int, logprob: float | None, likeliest: Mapping[int, float]) -> Step:
        """Append the token that was chosen, and end the sequence if it is the last one.

        Args:
            token: its id.
            logprob: its natural log-probability, if it is known.
            likeliest: the most likely tokens with theirs.
        """
        self.ids.append(token)
        self.generated += 1
        ended = token in self._end_ids
        visible = "" if ended else self._decoder.push(token)
        text, stopped = self._stops.push(visible, self._decoder.hidden(token))
        complete = self._completed_by(token)
        if ended or stopped or complete or (self._ends is not None and self._ends(text)):
            self.finish_reason = "stop"
        elif self.generated == self._params.max_tokens or len(self.ids) >= self._max_context:
            self.finish_reason = "length"
        elif self._loops is not None and self._loops.push(token):
            self.finish_reason = "loop"
        if self.finish_reason is not None and not stopped:
            text += self._stops.push(self._decoder.flush())[0] + self._stops.flush()
        stats = self.meter.statistics(self.generated)
        return Step(text, token, logprob, self.finish_reason, stats, likeliest)

    def _completed_by(self, token: int) -> bool:
        """Whether the constraint lets nothing follow behind a token."""
        if self._constraint is None:
            return False
        self._constraint.follow(token)
        return self._constraint.complete


def sequence_of(
    loaded: LoadedModel,
    prompt: Prompt,
    params: SamplingParams | None,
    processors: Sequence[LogitsProcessor] = (),
    template_args: Mapping[str, Any] | None = None,
    constraint: Constraint | None = None,
    shown: Collection[str] = (),
    ends: Callable[[str], bool] | None = None,
) -> DecodingSequence:
    """A sequence of a loaded model that has not begun; arguments as for `Generator.stream`.

    Args:
        loaded: the model.
        prompt, params, processors, template_args: as there.
        constraint: what the text must follow, made by `loaded.constraints`; None: nothing.
        shown, ends: those of `DecodingSequence`.

    Raises:
        ContextError, OptionError, TemplateError: as for `Generator.stream`.
    """
    params = params or loaded.default_params
    if constraint is not None and params.ignore_eos:
        raise OptionError(
            "ignore_eos goes on behind the end of a text, and a schema, regex or grammar says "
            "where that is; leave one of them out."
        )
    ids = loaded.encode(prompt, template_args)
    if len(ids) > loaded.max_context - 1:
        raise ContextError(
            f"The prompt has {len(ids)} tokens and the context holds {loaded.max_context}; "
            f"{loaded.model.kv_cache.how_to_fit(len(ids) + 1, 'prompt')}."
        )
    sampler = Sampler(params, loaded.config.vocab_size, processors)
    return DecodingSequence(
        ids,
        params,
        loaded.tokenizer,
        sampler,
        loaded.end_ids,
        loaded.max_context,
        constraint=constraint,
        shown=shown,
        ends=ends,
    )


def logits_of(
    loaded: LoadedModel, ids: Sequence[int], demand_latest: Callable[[], None]
) -> Iterator[Floats]:
    """Logits after each id, (tokens, vocab_size) for the next few; the KV cache is emptied first.

    Args:
        loaded: the model.
        ids: at least one.
        demand_latest: raises where another call has taken the KV cache over.
    """
    model, parts = loaded.model, None
    while True:
        with loaded.busy:
            demand_latest()
            if parts is None:
                model.kv_cache.trim(0)
                parts = model.read_all_logits(ids, loaded.sparse_prefill)
            part = next(parts, None)
        if part is None:
            return
        yield part
