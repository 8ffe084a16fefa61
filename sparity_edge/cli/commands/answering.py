"""What `chat`, `generate` and `info` do.

Text goes to stdout, notes to stderr: in a pipe only that an answer was cut, unless the user asked
for more with -v. Models, sources and packs are used through their public functions only.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.chat.conversation import Conversation, plain_text
from sparity_edge.chat.session import ChatSession, Reply, cut_short, looped, statistics_line
from sparity_edge.cli.commands.loading import FORCE, described, loaded, side_screen
from sparity_edge.cli.options.constraint import constraint_options
from sparity_edge.cli.options.sampling import sampling_params
from sparity_edge.cli.options.template import template_args
from sparity_edge.errors import OptionError
from sparity_edge.system.threads import default_threads
from sparity_edge.terminal.json_output import print_json
from sparity_edge.terminal.screen import Screen, one_line, read_stdin
from sparity_edge.text.text_file import MAX_TEXT_BYTES

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator
    from sparity_edge.generation.params import SamplingParams


def chat(arguments: Namespace) -> None:
    """`sparity-edge chat`: a session at a terminal, else one message and one reply."""
    sampling_params(arguments)  # what is wrong is said before anything is loaded
    system = None if arguments.system is None else plain_text(arguments.system)
    template, constraint = template_args(arguments), constraint_options(arguments)
    if arguments.prompt is None and sys.stdin.isatty() and sys.stdout.isatty():
        if constraint:
            given = next(iter(constraint))
            raise OptionError(f"--{given} is for one answer; give --prompt as well.")
        with loaded(arguments, Screen(sys.stdout, sys.stdout)) as (generator, screen):
            params = _params(arguments, generator)
            _hold_session(arguments, ChatSession(generator, params, system, screen, template))
        return
    talk = Conversation(system)
    talk.say("user", _prompt(arguments))
    _reply_once(arguments, talk.turns(), constraint, template)


def generate(arguments: Namespace) -> None:
    """`sparity-edge generate`: continue a text."""
    sampling_params(arguments)
    _reply_once(arguments, _prompt(arguments), constraint_options(arguments))


def info(arguments: Namespace) -> None:
    """`sparity-edge info`: what there is to know about a model; its weights are not read."""
    facts: dict[str, Any]
    if arguments.cpu:
        from sparity_edge.kernels.simd.cpu import chosen

        facts = {**chosen(), "threads": default_threads()}
    else:
        facts, plans = described(arguments)
        if plans:
            facts["active_weight_fraction_by_level"] = plans
    if arguments.json:
        print_json(facts)
        return
    width = max(22, *(len(key) for key in facts))
    for key, value in facts.items():
        print(f"{key.replace('_', ' '):<{width}} {one_line(_fact(value))}")


def _hold_session(arguments: Namespace, session: ChatSession) -> None:
    from sparity_edge.chat.commands import ALIASES, COMMANDS
    from sparity_edge.chat.line_input import confirm, open_line_input
    from sparity_edge.chat.repl import run
    from sparity_edge.cli.commands.chat_plans import ChatPlans
    from sparity_edge.system.folders import cache_root

    words = [*COMMANDS, *(alias for alias in ALIASES if alias[1:].isalpha())]
    for line in header(session.generator):
        session.screen.note(line)
    _say_choice(session.generator, session.screen)
    session.plans, session.confirm = ChatPlans(arguments, session.screen), confirm
    session.generator.compile_behind()
    try:
        run(session, open_line_input(cache_root() / "chat_history", words))
    finally:
        session.generator.close()  # may be another one by now


def header(generator: Generator) -> tuple[str, str, str]:
    """The three lines in front of a chat."""
    facts = generator.info()
    parameters = f"{facts.get('parameters', 0) / 1e6:,.0f} M parameters"
    size = f"{'/'.join(facts.get('dtypes', []))}, {facts.get('weight_bytes', 0) / 1e6:,.0f} MB"
    reading = f"{facts['always_skipped']} skipped" if "always_skipped" in facts else "dense"
    if generator.sparsity:
        reading = f"{generator.sparsity:.0%} of weights skipped"
    source = Path(str(facts.get("source")))
    name = source if len(source.parts) < 3 else source.name  # an alias or org/name stays whole
    return (
        one_line(f"{name} · {parameters} · {size}"),
        f"context {generator.max_context} tokens · {generator.threads} threads · {reading}",
        "/help lists commands · Alt-Enter makes a new line · Ctrl-C stops · Ctrl-D leaves",
    )


def _say_choice(generator: Generator, screen: Screen) -> None:
    """What became of --sparsity or --level, on one line."""
    if (choice := generator.sparsity_choice) is not None:
        screen.note(f"Sparsity: {choice.line(FORCE)}.")


def _params(arguments: Namespace, generator: Generator) -> SamplingParams:
    """What the user asked for, else what the model suggests; a chat ends loops."""
    own = replace(generator.default_params, stop_loops=arguments.run == "chat")
    return sampling_params(arguments, own)


def _reply_once(
    arguments: Namespace,
    prompt: Any,
    constraint: Mapping[str, str],
    template: Mapping[str, Any] | None = None,
) -> None:
    """Stream one text to stdout and end its line."""
    side = side_screen()
    with loaded(arguments, side, prompt=prompt) as (generator, _):
        out = Screen(sys.stdout, None)
        reply = Reply()
        params = _params(arguments, generator)
        _say_choice(generator, side)
        try:
            reply.stream(generator, prompt, params, out, template, constraint)
        finally:
            out.end_line()
        if reply.interrupted:
            raise KeyboardInterrupt
        if ending := cut_short(reply.last, params, generator):
            side.note(ending)
            if looped(reply.last):
                side.note("--no-stop-loops lets it go on.")
        if arguments.verbose and reply.last is not None:
            side.note(statistics_line(reply.last.stats, reply.first_seconds))


def _prompt(arguments: Namespace) -> str:
    """The text of --prompt, else standard input."""
    text = arguments.prompt
    if text is None:
        if sys.stdin.isatty() and sys.stderr.isatty():
            print("Type the text and end it with Ctrl-D on a line of its own.", file=sys.stderr)
        text = read_stdin(MAX_TEXT_BYTES)
        if len(text) > MAX_TEXT_BYTES:
            raise OptionError(f"Standard input is longer than {MAX_TEXT_BYTES >> 20} MiB.")
    if not text.strip():
        raise OptionError("The prompt is empty; give it with --prompt or on standard input.")
    return plain_text(text)


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)
