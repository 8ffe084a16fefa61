"""Generator: text in, text out; the one door to the runtime, for Python and for the chat.

It joins a loaded model and a sampler and knows nothing of weights, kernels or sparsity. One
Generator holds one KV cache: it decodes one sequence at a time, and every call passes all of its
text. Batches bring KV caches of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.choices import DEFAULT_MODEL
from sparity_edge.generation.batch_calls import BatchCalls
from sparity_edge.generation.constraint.grammars import Schema
from sparity_edge.generation.loaded_model import Prompt, as_messages
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.results import Completion, Step
from sparity_edge.text.token_ids import checked_ids

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sparity_edge.arrays import Floats
    from sparity_edge.generation.logits_processors import LogitsProcessor
    from sparity_edge.generation.options import LoadOptions

__all__ = ["Generator", "Prompt"]


class Generator(BatchCalls):
    """A loaded model that generates text; made by `Generator.load`, usable as a context manager.

    Args:
        loaded: the model in memory.
    """

    @staticmethod
    def load(model: str | Path = DEFAULT_MODEL, **options: Unpack[LoadOptions]) -> Generator:
        """Load a model, packing it into the pack cache first if that has not been done.

        Args:
            model: a packed folder, a Hugging Face folder, a GGUF file, an alias, or a hub id
                (org/name, of GGUF files org/name:Q4_K_M).
            dtype: "f32", "bf16", "int8" or "int4"; None keeps the numbers of a quantised source
                and makes int8 of any other.
            threads: how many cores to use; None: all physical cores this process may use.
            sparsity: share of decoder weight bytes to skip; 0 and None read all of them. Where that
                does not make decoding faster, which is measured once, all are read as well:
                `sparsity_choice` says so.
            plan: the plan to follow; None: the one that makes decoding fastest here. A model that
                is not a packed folder is calibrated first if that has not been done.
            level: the plan's own nominal level, in place of `sparsity`; followed at any speed.
            force: follow the plan even where it gains nothing or its KL to the dense model,
                measured on held-out text, is above 0.1 nats a token.
            sparse_prefill: sparsify prompts as well, all but their first four tokens.
            max_context: positions of the KV cache; None: the model's own, at most 32768.
            cache_dtype: "f32", "bf16" or "int8" for keys and values; None: bf16, or f32 where all
                weights are.
            cache_dir: a folder that keeps what was read of prompts: what begins alike is not read
                again by other processes or after a restart. No bit of a text depends on it.
            cache_dir_mb: MB of files there; what was used longest ago is removed beyond it.
            full_head: compute all logits of every token. Otherwise greedy decoding and sampling
                with `top_k` compute only those that may be among the largest, where that reads
                clearly less: a screen of the LM head, made once and kept in the cache, tells which.
            speculation: where the text goes on as it did before, in prompt or answer, read guesses
                of the next tokens in the same pass, as far as that pays here. The text is the same
                bit by bit, and so is all that is known of it.
            draft: a smaller model of the same vocabulary that makes guesses where the text has not
                been before, named as `model` is; it is asked only as far as that pays here.
            offline: use only what is on this machine.
            lora: folders of LoRA adapters as peft writes them, each with ":SCALE" behind it or
                without; several are added up. The model with them is packed by itself.
            progress: told of downloads, packing and compiling.
            notify: given one sentence before something is made that stays on disk.

        Returns:
            A Generator whose weights are in memory; `close` it, or use it in a `with` statement.

        Raises:
            OptionError: an argument cannot be honoured, or the draft model has another vocabulary.
            TooLossyError: the plan costs more than that, and `force` was not given.
            SourceError, ConfigError, FormatError: the model cannot be found, read or run.

        Example:
            >>> from sparity_edge import Generator
            >>> with Generator.load("smollm2-135m", threads=2) as loaded:
            ...     loaded.threads
            2
        """
        from sparity_edge.load import load

        return load(model, **options)

    def twin(self, *, threads: int | None = None) -> Generator:
        """A second Generator over the weights in memory, with threads and a KV cache of its own.

        Args:
            threads: how many compute; None: as many as here.

        Returns:
            A Generator that is closed apart from this one; the plan in force is not taken over.

        Raises:
            OptionError: that is no number of threads.

        Example:
            >>> with generator.twin(threads=1) as other:
            ...     other.threads, other.path == generator.path
            (1, True)
        """
        return Generator(self.loaded.twin(threads))

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        template_args: Mapping[str, Any] | None = None,
        schema: Schema | None = None,
        regex: str | None = None,
        grammar: str | None = None,
    ) -> Iterator[Step]:
        """Generate token by token.

        Closing the iterator, or Ctrl-C, ends the sequence and leaves the Generator usable.

        Args:
            prompt: a text (continued as it stands), messages with "role" and "content" (rendered
                with the model's chat template), or token ids; a beginning that is in the KV cache
                is not read again.
            params: how tokens are chosen and what ends the sequence; None: the defaults.
            logits_processors: functions (token_ids, logits (vocab_size,) float32) -> logits, called
                one after another before a token is chosen; token_ids are prompt and text so far.
            template_args: variables of the chat template, such as {"enable_thinking": False}.
            schema: a JSON schema that the text must be valid by: a dict, its JSON, or a model of
                pydantic's. Of schema, regex and grammar one may be given.
            regex: the text must match it from beginning to end; syntax of Rust's regex crate.
            grammar: the text must follow it; Lark as llguidance reads it, or its JSON form.

        Yields:
            One `Step` a token; the last one has a `finish_reason`.

        Raises:
            ContextError: the prompt leaves no room for a token.
            OptionError: the prompt is empty or holds what is no token id, a processor gives no such
                logits, or schema, regex or grammar cannot be followed.
            TemplateError: the messages cannot be rendered.
            SparityError: another call began before this sequence was finished.

        Example:
            >>> params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
            >>> for step in generator.stream("The river", params):
            ...     print(step.stats.generated_tokens, step.finish_reason)
            1 None
            2 None
            3 length
        """
        from sparity_edge.generation.sequence import sequence_of
        from sparity_edge.generation.speculation.decode import steps_of

        # Not a generator function itself: mistakes are told now and not at the first step.
        constraint = self.loaded.constraints.one_of(schema, regex, grammar)
        sequence = sequence_of(
            self.loaded, prompt, params, logits_processors, template_args, constraint
        )
        call = self.new_call()
        return steps_of(self.loaded, sequence, lambda: self.refuse_stale(call))

    def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        template_args: Mapping[str, Any] | None = None,
        schema: Schema | None = None,
        regex: str | None = None,
        grammar: str | None = None,
    ) -> Completion:
        """Generate a whole text at once.

        Args:
            prompt: a text, messages or token ids, as `stream` takes them.
            params: how tokens are chosen and what ends the sequence; None: the defaults.
            logits_processors: functions on logits, as `stream` takes them.
            template_args: variables of the chat template, such as {"enable_thinking": False}.
            schema: a JSON schema that the text must be valid by, as `stream` takes it.
            regex: what the text must match, as `stream` takes it.
            grammar: what the text must follow, as `stream` takes it.

        Returns:
            Text, token ids, why the sequence ended, and what it cost.

        Raises:
            ContextError, OptionError, TemplateError: the prompt does not fit, is empty or cannot be
                rendered.

        Example:
            >>> completion = generator.generate([5, 6, 7], SamplingParams(max_tokens=2, seed=0))
            >>> len(completion.token_ids), completion.stats.prompt_tokens
            (2, 3)
        """
        steps = self.stream(
            prompt,
            params,
            logits_processors=logits_processors,
            template_args=template_args,
            schema=schema,
            regex=regex,
            grammar=grammar,
        )
        return Completion.of(list(steps))

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        params: SamplingParams | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        template_args: Mapping[str, Any] | None = None,
        schema: Schema | None = None,
        regex: str | None = None,
        grammar: str | None = None,
    ) -> Completion:
        """Generate the whole reply to a conversation.

        Args:
            messages: each with "role" ("system", "user" or "assistant") and "content", and where
                there is some "reasoning"; rendered with the model's chat template. A string is one
                message of the user.
            params: how tokens are chosen and what ends the reply; None: the defaults.
            logits_processors: functions on logits, as `stream` takes them.
            template_args: variables of the chat template, such as {"enable_thinking": False}.
            schema: a JSON schema that the text must be valid by, as `stream` takes it.
            regex: what the text must match, as `stream` takes it.
            grammar: what the text must follow, as `stream` takes it.

        Returns:
            Text, token ids, why the reply ended, and what it cost.

        Raises:
            ContextError: the conversation leaves no room for a token.
            OptionError, TemplateError: there are no messages, or they cannot be rendered.

        Example:
            >>> reply = generator.chat("Hi", SamplingParams(seed=0))
            >>> reply.finish_reason in ("stop", "length")
            True
        """
        return self.generate(
            as_messages(messages),
            params,
            logits_processors=logits_processors,
            template_args=template_args,
            schema=schema,
            regex=regex,
            grammar=grammar,
        )

    def logits(self, ids: Sequence[int]) -> Iterator[Floats]:
        """Logits after each of some token ids, read from an empty KV cache.

        Args:
            ids: token ids, at least one; the first is read behind nothing.

        Yields:
            (tokens, vocab_size) float32 for the next few ids, valid until the next step.

        Raises:
            ContextError: the ids do not fit.
            OptionError: there are none, or one is no token id.
            SparityError: another call began before all were read.

        Example:
            >>> parts = [part.copy() for part in generator.logits([3, 1, 4])]
            >>> sum(map(len, parts)), parts[0].shape[1] == generator.config.vocab_size
            (3, True)
        """
        from sparity_edge.generation.sequence import logits_of

        ids = self.encode(checked_ids(ids, self.config.vocab_size))
        call = self.new_call()
        return logits_of(self.loaded, ids, lambda: self.refuse_stale(call))

    def __enter__(self) -> Generator:
        self.loaded.demand_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
