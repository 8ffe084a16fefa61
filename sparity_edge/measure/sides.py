"""Sides: every configuration of a benchmark loaded beside the others, for interleaved timing.

Each pack's weights are in memory once, whatever the number of threads and depths; a depth has a
KV cache of its own, so that room for a long context slows no short one down (measured: 3.6 % on
SmolLM2 for 8192 positions). Threads of sides that are not at work sleep.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from sparity_edge.errors import ContextError, OptionError
from sparity_edge.generation.generator import Generator
from sparity_edge.measure.cases import Case, Configuration, Task
from sparity_edge.measure.ceiling import Memory
from sparity_edge.measure.context import lay_context, text_ids
from sparity_edge.measure.decoding import Timing, time_pass, time_sequence
from sparity_edge.model.model import DENSE_POSITIONS
from sparity_edge.model.opening import open_folder
from sparity_edge.model.prefixes.parts import FEW
from sparity_edge.plans.setting import Setting
from sparity_edge.progress import Progress, silent

POOL_BYTES = 512 << 20  # that streaming reads go through
SPARE_BYTES = 300 << 20  # Python, libraries, machine code and activations
STREAM_SECONDS = 0.3  # of streaming reads in a round

Place = tuple[Path, int, int]  # pack, threads, depth


class Sides:
    """The generators of all cases; a context manager that closes them.

    Args:
        packs: the packed folder of each configuration.
        cases: what will be asked for.
        cache_dtype, sparse_prefill, full_head: as for `Generator.load`.
        progress: told of loading, compiling and reading contexts.

    Raises:
        OptionError: a setting cannot be honoured, or memory does not suffice.
        ContextError: a task does not fit into the model's context.
        ConfigError, FormatError: a folder is damaged.
    """

    def __init__(
        self,
        packs: Mapping[Configuration, Path],
        cases: Sequence[Case],
        *,
        cache_dtype: str | None = None,
        sparse_prefill: bool = False,
        full_head: bool = False,
        progress: Progress = silent,
    ) -> None:
        self._paths, self._progress = packs, progress
        self._cache_dtype, self._sparse_prefill = cache_dtype, sparse_prefill
        self._full_head = full_head
        self._open = contextlib.ExitStack()
        self._generators: dict[Place, Generator] = {}
        self._ids: dict[Path, list[int]] = {}  # of a text, longer than any depth and prompt
        self._in_force: dict[int, Setting] = {}  # by id of the generator
        self._memories: dict[int, Memory] = {}  # by threads
        self.compile_seconds: dict[Path, float] = {}
        by_path = {path: [c for c in cases if self.path(c) == path] for path in packs.values()}
        _demand_memory(sum(map(_size, by_path)) + POOL_BYTES + SPARE_BYTES, "models")
        try:
            for path, its in by_path.items():
                self._load(path, its)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Sides:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()
        self._generators.clear()
        self._memories.clear()

    def path(self, case: Case) -> Path:
        """The packed folder that a case reads."""
        return self._paths[case.configuration]

    def generator(self, case: Case) -> Generator:
        """The generator of a case: its plan in force, its context in the KV cache."""
        setting, task = case.configuration.setting, case.task
        generator = self._generators[self._place(case)]
        if self._in_force.get(id(generator)) != setting:
            generator.apply(setting)
            self._in_force[id(generator)] = setting
            for token in self._ids[self.path(case)][: 1 + DENSE_POSITIONS]:
                generator.loaded.model.read(
                    [token], sparse=True
                )  # the last one records the program
        generator.loaded.model.kv_cache.trim(task.depth)
        return generator

    def runner(self, case: Case) -> Callable[[], Timing]:
        """A function that runs a case and says how long that took."""
        task = case.task
        if task.read:
            return lambda: self._pass(case)
        ids = self._ids[self.path(case)][: task.depth + (task.prompt or 1)]
        return lambda: time_sequence(
            self.generator(case), ids, task.later, task.settle, task.together
        )

    def _pass(self, case: Case) -> Timing:
        generator = self.generator(case)
        seconds = time_pass(generator, case.task.read)
        return Timing(seconds, (), generator.active_weight_fraction)

    def streaming(self, threads: int) -> Callable[[], float]:
        """A function that gives the GB/s of streaming reads."""
        if threads not in self._memories:
            other = next(iter(self._memories.values()), None)
            self._memories[threads] = memory = Memory(threads, POOL_BYTES, other)
            self._open.callback(memory.close)
        return self._memories[threads].streaming(STREAM_SECONDS)

    def _place(self, case: Case) -> Place:
        return self.path(case), case.configuration.threads, case.task.depth

    def _load(self, path: Path, cases: Sequence[Case]) -> None:
        """One pack, with a generator for each number of threads and depth."""
        first = self._keep(
            Generator.load(
                path,
                threads=max(case.configuration.threads for case in cases),
                cache_dtype=self._cache_dtype,
                sparse_prefill=self._sparse_prefill,
                full_head=self._full_head,
                max_context=_context(path, [case.task for case in cases]),
            )
        )
        start = time.perf_counter()
        first.compile(self._progress)
        if any(1 < (case.task.prompt or case.task.read) <= FEW for case in cases):
            first.loaded.model.machine.compile_batches(self._progress)
        self.compile_seconds[path] = time.perf_counter() - start
        places = sorted({self._place(case) for case in cases}, key=lambda place: place[1:])
        room = max(case.task.positions - case.task.depth for case in cases)
        most = max(case.task.together for case in cases)
        positions = (1 + (most > 1) * most) * sum(place[2] + room for place in places)
        _demand_memory(positions * first.info()["cache_bytes_per_token"], "contexts")
        deepest = places.pop()  # and of the most threads: `first` is its generator
        self._generators[deepest] = first
        self._ids[path] = ids = text_ids(first, deepest[2] + room)
        sparse = any(not case.configuration.setting.dense for case in cases)
        lay_context(first, ids[: deepest[2]], room, like_text=sparse, progress=self._progress)
        for place in places:
            self._generators[place] = twin = self._keep(first.twin(threads=place[1]))
            twin.loaded.model.kv_cache.copy(first.loaded.model.kv_cache, place[2])
            twin.loaded.model.kv_cache.reserve(place[2] + room)
        for case in cases:
            self.generator(case)  # tells at once if a plan cannot be followed

    def _keep(self, generator: Generator) -> Generator:
        self._open.callback(generator.close)
        return generator


def _context(path: Path, tasks: Sequence[Task]) -> int:
    """The model's context, in which all tasks find room."""
    folder = open_folder(path)
    most = folder.config.model_context
    longest = max(tasks, key=lambda task: task.positions)
    if longest.positions > most:
        raise ContextError(
            f"{longest.name} takes {longest.positions} positions and the model's context holds "
            f"{most}; take a smaller depth, -p or -n."
        )
    return most


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("model-*.safetensors"))


def _demand_memory(nbytes: int, what: str) -> None:
    import psutil

    free = psutil.virtual_memory().available
    if nbytes > free:
        raise OptionError(
            f"The {what} to compare take {nbytes / 1e9:.1f} GB and {free / 1e9:.1f} GB of memory "
            "are free; measure fewer --dtype, --plan or --depth at a time."
        )
