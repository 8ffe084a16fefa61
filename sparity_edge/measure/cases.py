"""What `bench` measures: configurations and tasks, named as in llama-bench; cases are all pairs.

pp512 reads a prompt of 512 tokens, tg128 decodes 128 tokens one after another, pp512+tg128 does
both in one sequence, pass4 reads 4 tokens in one pass, as guesses are checked; "@ d2048" means
behind 2048 tokens of context and "4 x" four sequences together. Knows nothing of how it is done.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sparity_edge.errors import OptionError
from sparity_edge.generation.batch import MOST_TOGETHER
from sparity_edge.generation.options import checked_dial
from sparity_edge.model.model import DENSE_POSITIONS
from sparity_edge.model.prefixes.parts import FEW
from sparity_edge.plans.setting import DENSE, Setting


@dataclass(frozen=True)
class Task:
    """One thing to time."""

    prompt: int  # tokens read at once and timed; 0: a single one is, which is not timed
    later: int  # tokens decoded one after another and timed
    depth: int = 0  # tokens of context before all that
    together: int = 1  # sequences that are decoded in one batch
    read: int = 0  # tokens of one pass behind the context, as guesses are checked; 0: none

    @property
    def name(self) -> str:
        """As llama-bench would call it."""
        sizes = (("pp", self.prompt), ("tg", self.later))
        name = "+".join(f"{what}{size}" for what, size in sizes if size)
        name = f"pass{self.read}" if self.read else name
        name = f"{self.together} x {name}" if self.together > 1 else name
        return f"{name} @ d{self.depth}" if self.depth else name

    @property
    def settle(self) -> int:
        """Tokens left out between the first and those that are timed: plans spare the first few."""
        return 0 if self.prompt else DENSE_POSITIONS

    @property
    def positions(self) -> int:
        """Positions of the KV cache that it needs."""
        return self.depth + (self.prompt or 1) + self.settle + self.later + 1 + self.read

    @property
    def decoding_depth(self) -> float:
        """Positions of the KV cache in use while tokens are decoded, on average."""
        return self.depth + (self.prompt or 1) + self.settle + self.later / 2

    @property
    def tokens(self) -> int:
        """What its speed counts."""
        return self.prompt + self.later * self.together + self.read


@dataclass(frozen=True)
class Configuration:
    """What a task runs on."""

    dtype: str | None  # None: the default
    threads: int
    setting: Setting = DENSE


@dataclass(frozen=True)
class Case:
    """A task on a configuration."""

    configuration: Configuration
    task: Task


def tasks_of(
    prompts: Iterable[int],
    tokens: Iterable[int],
    pairs: Iterable[tuple[int, int]],
    depths: Iterable[int],
    together: Iterable[int],
    read: Iterable[int] = (),
) -> list[Task]:
    """Every task at every depth, decoding alone for each number of sequences; none of 0 tokens.

    Raises:
        OptionError: nothing is left, or too many sequences are to be decoded together, or tokens
            to be read in a pass.
    """
    together, read = list(together), list(read)
    if max(read, default=0) > FEW:
        raise OptionError(f"No more than {FEW} guesses are read in a pass; lower -s.")
    if max(together) > MOST_TOGETHER:
        raise OptionError(f"No more than {MOST_TOGETHER} sequences are decoded together; lower -b.")
    tasks = []
    for depth in depths:
        tasks += [Task(prompt, 0, depth) for prompt in prompts if prompt]
        tasks += [Task(0, later, depth, b) for later in tokens for b in together if later]
        tasks += [Task(*pair, depth) for pair in pairs]
        tasks += [Task(0, 0, depth, read=size) for size in read if size]
    if not tasks:
        raise OptionError("Nothing is left to measure; give -p or -n more than 0.")
    return list(dict.fromkeys(tasks))


def settings_of(
    plans: Sequence[str | None],
    sparsities: Sequence[float] | None,
    levels: Sequence[float] | None,
) -> list[Setting]:
    """Positions of the dial, those that skip nothing as one.

    Raises:
        OptionError: both or neither of sparsities and levels are given for a plan, or one is out of
            range.
    """
    if sparsities and levels:
        checked_dial(sparsities[0], levels[0])  # refuses both
    if any(plans) and sparsities is None and levels is None:
        raise OptionError("Nothing is sparse; say how far with --sparsity or --level.")
    found = []
    for plan in plans:
        for share in sparsities or ():
            found.append(Setting(plan, sparsity=checked_dial(share, None)))
        for share in levels or ():
            found.append(Setting(plan, level=checked_dial(None, share)))
    return list(dict.fromkeys(DENSE if each.dense else each for each in found or [DENSE]))


def cases_of(
    dtypes: Iterable[str | None],
    threads: Iterable[int],
    settings: Iterable[Setting],
    tasks: Sequence[Task],
) -> Iterator[Case]:
    """All of them, configuration by configuration."""
    for each in itertools.product(dtypes, threads, settings):
        yield from (Case(Configuration(*each), task) for task in tasks)
