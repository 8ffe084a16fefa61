"""BatchCalls: what a Generator offers for several prompts at once.

Arguments are checked and sequences made when a call is made; `batch` decodes them. Knows nothing of
calls for one prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparity_edge.generation.constraint.grammars import Schema
from sparity_edge.generation.loaded_model import Prompt
from sparity_edge.generation.model_handle import ModelHandle
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.results import Completion, Step

if TYPE_CHECKING:
    from sparity_edge.generation.logits_processors import BatchProcessors


class BatchCalls(ModelHandle):
    """A loaded model that generates several texts together."""

    def stream_batch(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        logits_processors: BatchProcessors = (),
        template_args: Mapping[str, Any] | None = None,
        schema: Schema | None = None,
        regex: str | None = None,
        grammar: str | None = None,
    ) -> Iterator[tuple[int, Step]]:
        """Generate for several prompts at once; weights are read once for a token of all sequences.

        Up to eight sequences are decoded together; where one ends, the next prompt begins. The KV
        cache of `stream` stays as it is. Each step counts the time of the whole batch, and the
        weights that its sequences would read alone, averaged.

        Args:
            prompts: each a text, messages or token ids, as `stream` takes them.
            params: for all prompts, or as many as prompts; None: the defaults.
            logits_processors: as `stream` takes them, for all prompts, or a list for each.
            template_args: variables of the chat template, such as {"enable_thinking": False}.
            schema: a JSON schema that each text must be valid by, as `stream` takes it.
            regex: what each text must match, as `stream` takes it.
            grammar: what each text must follow, as `stream` takes it.

        Yields:
            The number of a prompt, from 0, and the next step of its sequence.

        Raises:
            ContextError: a prompt leaves no room for a token.
            OptionError, TemplateError: a prompt is empty or cannot be rendered, or params are not
                as many as prompts.

        Example:
            >>> params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
            >>> sorted(number for number, _ in generator.stream_batch([[1, 2], [3]], params))
            [0, 0, 1, 1]
        """
        from sparity_edge.generation.batch import Batch, sequences_of

        constraint = self.loaded.constraints.one_of(schema, regex, grammar)
        sequences = sequences_of(
            self.loaded, prompts, params, logits_processors, template_args, constraint
        )
        return Batch(self.loaded, sequences).steps()

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        logits_processors: BatchProcessors = (),
        template_args: Mapping[str, Any] | None = None,
        schema: Schema | None = None,
        regex: str | None = None,
        grammar: str | None = None,
    ) -> list[Completion]:
        """Generate whole texts for several prompts, each weight read once for all sequences.

        Args:
            prompts: each a text, messages or token ids, as `stream` takes them.
            params: for all prompts, or as many as prompts; None: the defaults.
            logits_processors: as `stream` takes them, for all prompts, or a list for each.
            template_args: variables of the chat template, such as {"enable_thinking": False}.
            schema: a JSON schema that each text must be valid by, as `stream` takes it.
            regex: what each text must match, as `stream` takes it.
            grammar: what each text must follow, as `stream` takes it.

        Returns:
            A completion for each prompt, in the order of the prompts.

        Raises:
            ContextError, OptionError, TemplateError: a prompt does not fit, is empty or cannot be
                rendered, or params are not as many as prompts.

        Example:
            >>> params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
            >>> [len(each.token_ids) for each in generator.generate_batch([[1, 2], [3]], params)]
            [4, 4]
        """
        stream = self.stream_batch(
            prompts,
            params,
            logits_processors=logits_processors,
            template_args=template_args,
            schema=schema,
            regex=regex,
            grammar=grammar,
        )
        steps: list[list[Step]] = [[] for _ in prompts]
        for index, step in stream:
            steps[index].append(step)
        return [Completion.of(each) for each in steps]
