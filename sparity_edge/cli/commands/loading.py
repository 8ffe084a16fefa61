"""What all commands that load a model share: the generator, and bars and notes beside the work.

Notes and bars go to stderr; in a pipe only what one must know, that something takes long, unless
the user asked for more with -v. Knows nothing of what is done with the generator.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparity_edge.progress import CallContext
from sparity_edge.terminal.screen import BAR_DELAY, PIPE_DELAY, Bars, Screen, is_dumb

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator

FORCE = "--force"
LINE = 100  # characters
COMPILING = "Compiling kernels for this machine (once)"


@contextmanager
def loaded(
    arguments: Namespace, screen: Screen, *, as_asked: bool = False, prompt: Any = None
) -> Iterator[tuple[Generator, Screen]]:
    """The generator that the command line names, compiled; closed at the end.

    Args:
        arguments: the understood command line.
        screen: where bars and notes go.
        as_asked: follow a plan whatever it gains and costs, to find out the latter.
        prompt: the only one to come, if there will be one only.
    """
    generator = load_generator(arguments, screen, as_asked=as_asked, prompt=prompt)
    if arguments.verbose:
        facts = generator.info()
        screen.note(
            f"Loaded {facts.get('weight_bytes', 0) / 1e6:.1f} MB from {facts.get('path')} in "
            f"{facts.get('load_seconds', 0.0):.2f} s; {generator.threads} threads."
        )
    with generator:
        yield generator, screen


def load_generator(
    arguments: Namespace, screen: Screen, *, as_asked: bool = False, prompt: Any = None
) -> Generator:
    """The generator that the command line names, compiled, for the caller to close.

    Args:
        arguments, screen, as_asked, prompt: as for `loaded`.

    Raises:
        TooLossyError: its plan would change the text too much.
        SparityError: as `Generator.load`.
    """
    with progress_bars(arguments, screen) as bars:
        from sparity_edge.generation.generator import Generator

        options = {
            **_asked(arguments),
            "sparse_prefill": arguments.sparse_prefill,
            "full_head": arguments.full_head,
            "speculation": arguments.speculation,
            "draft": arguments.draft,
            **_kept(arguments),
            "offline": arguments.offline,
            "progress": bars,
            "notify": bars.notify,
        }
        sparse = arguments.sparsity or arguments.level or arguments.plan
        if as_asked and sparse:
            generator = _load_as_asked(arguments.model, options)
        else:
            generator = Generator.load(arguments.model, **options, force=arguments.force)
        try:
            tokens = _tokens_if_few(generator, prompt)
            generator.compile(lambda _, done, total: bars(COMPILING, done, total), tokens=tokens)
        except BaseException:
            generator.close()
            raise
    return generator


def _tokens_if_few(generator: Generator, prompt: Any) -> int | None:
    """How many tokens a text has that is hardly a line; None: it may be many."""
    if isinstance(prompt, str) and len(prompt) <= LINE:
        return len(generator.encode(prompt))
    return None


def _load_as_asked(model: str, options: dict[str, Any]) -> Generator:
    """A generator that follows the plan of the options without a look at speed and loss."""
    from sparity_edge.generation.generator import Generator
    from sparity_edge.load import packed_folder

    dial = {name: options.pop(name) for name in ("plan", "sparsity", "level")}
    dtype, threads, plan = options.pop("dtype"), options["threads"], dial["plan"]
    context = CallContext(options["offline"], options["progress"], options["notify"])
    path = packed_folder(model, context, sparse=True, dtype=dtype, plan=plan, threads=threads)
    generator = Generator.load(path, **options)
    try:
        generator.set_plan(plan, sparsity=dial["sparsity"], level=dial["level"], force=True)
    except BaseException:
        generator.close()
        raise
    return generator


def described(arguments: Namespace) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """What there is to know about the model that the command line names, and its plans."""
    from sparity_edge.load import describe

    with progress_bars(arguments, side_screen()) as bars:
        return describe(
            arguments.model,
            **_asked(arguments),
            context=CallContext(arguments.offline, bars, bars.notify),
        )


def _kept(arguments: Namespace) -> dict[str, Any]:
    """Where the command keeps beginnings of prompts; empty: nowhere."""
    if getattr(arguments, "cache_dir", None) is None:
        return {}
    return {"cache_dir": arguments.cache_dir, "cache_dir_mb": arguments.cache_dir_mb}


def _asked(arguments: Namespace) -> dict[str, Any]:
    """What the command line says of the pack, its plan and the KV cache."""
    names = ("dtype", "threads", "sparsity", "plan", "level", "max_context", "cache_dtype")
    return {name: getattr(arguments, name) for name in names}


def side_screen() -> Screen:
    """A screen beside the answer: whatever it is given goes to stderr."""
    return Screen(sys.stderr, sys.stderr)


def progress_bars(arguments: Namespace, screen: Screen, *, still: bool = False) -> Bars:
    """Bars at a terminal, lines elsewhere: at once with -v, else of work that takes long."""
    terminal = sys.stderr.isatty() and not is_dumb()
    delay = BAR_DELAY if sys.stderr.isatty() or arguments.verbose else PIPE_DELAY
    if still and delay == BAR_DELAY:
        delay = 0
    return Bars(screen, terminal=terminal, delay=delay, still=still)
