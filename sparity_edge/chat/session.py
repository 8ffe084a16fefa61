"""A conversation at the terminal: ask, stream the reply, keep what was said.

The session knows a generator's `stream` and the conversation; what begins with a slash is done by
`commands`. The whole conversation is passed at every turn, so clearing, regenerating and loading
need no other call of the generator.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sparity_edge.chat.conversation import Conversation
from sparity_edge.errors import ContextError, SparityError
from sparity_edge.generation.params import SamplingParams
from sparity_edge.terminal.keyboard import unechoed_keys
from sparity_edge.terminal.screen import Screen

if TYPE_CHECKING:
    from sparity_edge.chat.plan_maker import PlanMaker
    from sparity_edge.generation.generator import Generator
    from sparity_edge.generation.results import Statistics, Step


class ChatSession:
    """One conversation with one model.

    Args:
        generator: a loaded generator.
        params: sampling parameters; `/set` replaces them.
        system: the system prompt; None leaves it to the model's template.
        screen: where everything is written.
        template_args: variables of the chat template; `/set template` changes them.
        plans: makes sparsity plans for `/sparsity`; None: those that the model carries are all.
        confirm: asks a question that is answered by yes or no; None: there is nobody to ask.
    """

    def __init__(
        self,
        generator: Generator,
        params: SamplingParams,
        system: str | None,
        screen: Screen,
        template_args: Mapping[str, Any] | None = None,
        *,
        plans: PlanMaker | None = None,
        confirm: Callable[[str], bool] | None = None,
    ) -> None:
        self.generator = generator
        self.params = params
        self.conversation = Conversation(system, template_args=dict(template_args or {}))
        self.screen = screen
        self.plans = plans
        self.confirm = confirm
        self.totals = Totals()

    def replace_generator(self, generator: Generator) -> None:
        """Go on with another generator; its KV cache fills with the conversation at the next reply.

        The former one is closed.
        """
        former, self.generator = self.generator, generator
        former.close()

    def ask(self, text: str) -> None:
        """Reply to a message; without a reply it does not become part of the conversation."""
        self.conversation.say("user", text)
        try:
            self._reply()
        finally:
            self.conversation.take_back("user")  # unless a reply follows it

    def regenerate(self) -> bool:
        """Reply to the last message once more; returns whether there is one."""
        former = self.conversation.take_back("assistant")
        if former is None:
            return False
        try:
            self._reply()
        finally:
            if self.conversation.messages[-1]["role"] == "user":
                self.conversation.say("assistant", former)
        return True

    def _reply(self) -> None:
        """Stream the reply to the last message and keep it, if there is one."""
        reply = Reply()
        try:
            talk = self.conversation.turns()
            variables = self.conversation.template_args
            reply.stream(self.generator, talk, self.params, self.screen, variables)
        except ContextError as error:
            self._say_context_is_full(str(error))
            return
        except SparityError as error:
            self.screen.note(str(error))
            return
        finally:
            self.screen.end_line()
        if reply.interrupted and not reply.text:
            self.screen.text("\n")  # the terminal has written ^C
            self.screen.note("Stopped before the reply began; nothing is kept.")
            return
        self.conversation.say("assistant", reply.text)
        self._say_how_it_ended(reply)

    def _say_context_is_full(self, reason: str) -> None:
        self.screen.note(f"{reason} Your message is not kept; /clear begins a new conversation.")

    def _say_how_it_ended(self, reply: Reply) -> None:
        if reply.interrupted:
            self.screen.note("Stopped; the conversation keeps what was said.")
        elif ending := cut_short(reply.last, self.params, self.generator):
            self.screen.note(ending)
            if reply.last is not None and is_full(reply.last.stats, self.generator):
                self.screen.note("/clear begins a new conversation.")
            elif looped(reply.last):
                self.screen.note("/set stop_loops false lets such replies go on.")
        if reply.last is not None:
            self.totals.add(reply.last.stats)
            self.screen.note(statistics_line(reply.last.stats, reply.first_seconds))
            self.screen.note("")


class Reply:
    """One reply in progress: its text so far, and how it ended."""

    def __init__(self) -> None:
        self.text = ""
        self.last: Step | None = None
        self.interrupted = False
        self.first_seconds: float | None = None  # from the request to the first token

    def stream(
        self,
        generator: Generator,
        prompt: Any,
        params: SamplingParams,
        out: Screen,
        template_args: Mapping[str, Any] | None = None,
        constraint: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the reply to the screen as it comes; Ctrl-C ends it.

        Raises:
            SparityError: whatever the generator has to say against the prompt.
        """
        begun = time.monotonic()
        pieces: list[str] = []
        steps: Iterator[Step] | None = None
        try:
            with unechoed_keys():
                steps = generator.stream(
                    prompt, params, template_args=template_args, **(constraint or {})
                )
                for step in steps:
                    if self.first_seconds is None:
                        self.first_seconds = time.monotonic() - begun
                    self.last = step
                    pieces.append(step.text)
                    out.text(step.text)
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            close = getattr(steps, "close", None)
            if close is not None:
                with contextlib.suppress(KeyboardInterrupt):
                    close()
            self.text = "".join(pieces)


class Totals:
    """Sums over a session, for /stats."""

    def __init__(self) -> None:
        self.replies = 0
        self.generated_tokens = 0
        self.decode_seconds = 0.0
        self.prefill_seconds = 0.0
        self.drafted_tokens = 0
        self.accepted_tokens = 0
        self.decode_passes = 0
        self.context_tokens = 0  # taken by the conversation after the last reply
        self.active_weight_fraction = 1.0  # of the last reply
        self.densities: Mapping[str, float] = {}  # of the last reply

    def add(self, stats: Statistics) -> None:
        """Count one reply."""
        self.replies += 1
        self.generated_tokens += stats.generated_tokens
        self.decode_seconds += stats.decode_seconds
        self.prefill_seconds += stats.prefill_seconds
        self.drafted_tokens += stats.drafted_tokens
        self.accepted_tokens += stats.accepted_tokens
        self.decode_passes += stats.decode_passes
        self.context_tokens = stats.prompt_tokens + stats.generated_tokens
        self.active_weight_fraction = stats.active_weight_fraction
        self.densities = stats.densities


def cut_short(last: Step | None, params: SamplingParams, generator: Generator) -> str | None:
    """What to say about a reply that the model did not end itself; None if it did."""
    if looped(last):
        return "Stopped: the text repeats itself word for word."
    if last is None or last.finish_reason != "length":
        return None
    if not is_full(last.stats, generator):
        return f"Cut after max_tokens={params.max_tokens}."
    full = f"Cut: the context of {generator.max_context} tokens is full."
    if generator.max_context < generator.info().get("model_context", 0):
        return f"{full} A larger --max-context makes room for more."
    return full


def looped(last: Step | None) -> bool:
    """Whether a reply was ended because it repeated itself."""
    return last is not None and last.finish_reason == "loop"


def is_full(stats: Statistics, generator: Generator) -> bool:
    """Whether prompt and reply fill the KV cache."""
    return stats.prompt_tokens + stats.generated_tokens >= generator.max_context


def statistics_line(stats: Statistics, first_seconds: float | None) -> str:
    """Tokens, speed, prompt, time to first token and share of weights read, on one line."""
    parts = [
        f"{stats.generated_tokens} tokens",
        f"{stats.decode_tokens_per_second:.1f} tok/s",
        f"prompt {stats.prompt_tokens} ({stats.cached_tokens} cached)",
    ]
    if first_seconds is not None:
        parts.append(f"first token {first_seconds:.2f} s")
    parts.append(f"{stats.active_weight_fraction:.0%} of weights read")
    if stats.drafted_tokens:
        parts.append(f"{stats.tokens_per_pass:.2f} tokens a pass")
    return " · ".join(parts)
