"""What `bench` does: interleaved timing, one row for each test on each configuration.

What is measured and how is in `measure`; this module turns the command line into cases, draws the
bar, and writes what is complete when the user has seen enough.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparity_edge.cli.commands.loading import progress_bars, side_screen
from sparity_edge.load import packed_folder
from sparity_edge.measure.cases import Case, Configuration, cases_of, settings_of, tasks_of
from sparity_edge.measure.figures import Round, price_list, rows_of
from sparity_edge.measure.fresh import in_fresh_process, peak_memory
from sparity_edge.measure.prices_kept import KeptPrices
from sparity_edge.measure.report import written
from sparity_edge.measure.rounds import counted, interleaved
from sparity_edge.measure.sides import Sides
from sparity_edge.progress import CallContext, Progress
from sparity_edge.system.threads import checked_threads, default_threads
from sparity_edge.terminal.screen import Bars


def bench(arguments: Namespace) -> None:
    """`sparity-edge bench`: measure, and write the rows to stdout; after Ctrl-C those so far.

    Raises:
        KeyboardInterrupt: once more, after writing.
    """
    cases = _cases(arguments)
    screen = side_screen()
    with progress_bars(arguments, screen) as bars:
        sides = Sides(
            _packs(cases, arguments, bars),
            cases,
            cache_dtype=arguments.cache_dtype,
            sparse_prefill=arguments.sparse_prefill,
            full_head=arguments.full_head,
            progress=bars,
        )
    with sides, progress_bars(arguments, screen, still=True) as bars:
        rounds, complete = _rounds(cases, sides, arguments.repetitions, bars)
        rows = rows_of(cases, rounds, sides)
        _keep_prices(cases, rounds, sides)
    if complete:
        with progress_bars(arguments, screen) as bars:
            complete = _add_peaks(rows, cases, sides, bars)
    print(written(rows, arguments.output))
    if not complete:
        raise KeyboardInterrupt


def _packs(cases: Sequence[Case], arguments: Namespace, bars: Bars) -> dict[Configuration, Path]:
    """The packed folder of each configuration, made where it is missing."""
    context = CallContext(arguments.offline, bars, bars.notify)
    return {
        each: packed_folder(
            arguments.model,
            context,
            sparse=not each.setting.dense,
            dtype=each.dtype,
            plan=each.setting.plan,
            threads=each.threads,
        )
        for each in dict.fromkeys(case.configuration for case in cases)
    }


def _cases(arguments: Namespace) -> list[Case]:
    tasks = tasks_of(
        arguments.n_prompt,
        arguments.n_gen,
        arguments.pairs,
        arguments.depth,
        arguments.batch,
        arguments.speculate,
    )
    settings = settings_of(arguments.plan, arguments.sparsity, arguments.level)
    threads = list(dict.fromkeys(map(checked_threads, arguments.threads)))
    if max(threads) > (cores := default_threads()):
        print(
            f"sparity-edge: {max(threads)} threads on {cores} cores wait for each other; "
            "compare with fewer.",
            file=sys.stderr,
        )
    return list(cases_of(arguments.dtype, threads, settings, tasks))


def _rounds(
    cases: Sequence[Case], sides: Sides, count: int, progress: Progress
) -> tuple[list[Round], bool]:
    """The rounds that are complete, at least one, and whether that is all of them."""
    work: dict[Case | int, Callable[[], Any]] = {case: sides.runner(case) for case in cases}
    for case in cases:
        if case.task.later:
            threads = case.configuration.threads
            work[threads] = sides.streaming(threads)
    rounds: list[Round] = []
    try:
        for each in interleaved(
            counted(work, len(work) * (count + 1), "Measuring", progress), count
        ):
            rounds.append(each)
    except KeyboardInterrupt:
        if not rounds:
            raise
        return rounds, False
    return rounds, True


def _keep_prices(cases: Sequence[Case], rounds: Sequence[Round], sides: Sides) -> None:
    """Keep what passes over several tokens cost, by plan, for speculation."""
    for case in cases:
        if prices := price_list(case, cases, rounds):
            KeptPrices(sides.generator(case).loaded).keep(prices)


def _add_peaks(
    rows: Sequence[dict[str, Any]], cases: Sequence[Case], sides: Sides, progress: Progress
) -> bool:
    """Measure memory once for each pack, dense and sparse, at the deepest; False: interrupted."""
    depth = max(case.task.depth for case in cases)
    prompt = max(case.task.prompt for case in cases) or 1
    threads = max(case.configuration.threads for case in cases)
    found: dict[Any, int] = {}
    for done, (row, case) in enumerate(zip(rows, cases)):
        setting, path = case.configuration.setting, sides.path(case)
        progress("Measuring memory", done, len(rows))
        if (path, setting.dense) not in found:
            dial = asdict(setting)
            try:
                peak = in_fresh_process(
                    peak_memory, path, threads, prompt, depth, row["cache_dtype"], dial
                )
            except KeyboardInterrupt:
                return False
            found[path, setting.dense] = peak["peak"]
        row["peak_memory_bytes"] = found[path, setting.dense]
    return True
