"""From timed rounds to the rows that `bench` writes; fields are named as in llama-bench.

A row is a task on a configuration. Speeds are means over the rounds with the sample's standard
deviation, as llama-bench has them; everything else is a median. Ratios and shares of the ceiling
are taken within a round. Knows nothing of how a row is written.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sparity_edge.generation.speculation.prices import PriceList
from sparity_edge.measure.cases import Case, Task
from sparity_edge.measure.decoding import Timing, bytes_of_a_token
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import deviation, percentile, ratios, short
from sparity_edge.measure.sides import Sides

Round = Mapping[Case | int, Any]  # Case -> Timing, number of threads -> GB/s of streaming reads


def rows_of(cases: Sequence[Case], rounds: Sequence[Round], sides: Sides) -> list[dict[str, Any]]:
    """A row for each case; the first configuration is what others are compared to."""
    rows = []
    for case in cases:
        base = next(each for each in cases if each.task == case.task)
        generator, path = sides.generator(case), sides.path(case)
        info = generator.info()
        row = _facts(case, info)
        row |= speeds(case, base, rounds)
        row["price"] = _maybe(price(case, rounds))
        # A prompt is read dense unless asked for.
        sparse = case.task.later or generator.loaded.sparse_prefill
        row["plan_kl"] = _maybe(generator.loaded.plan_setting.held_out_kl) if sparse else None
        if case.task.later:
            reads = bytes_of_a_token(
                generator.loaded.model,
                case.task.decoding_depth * case.task.together,
                row["active_weight_fraction"],
            )
            row |= {"bytes_per_token": reads, **ceiling(case, rounds, reads)}
        row["peak_memory_bytes"] = None  # a process of its own will tell
        row["load_seconds"] = short(info["load_seconds"])
        row["compile_seconds"] = short(sides.compile_seconds[path])
        rows.append(row)
    return rows


def _facts(case: Case, info: Mapping[str, Any]) -> dict[str, Any]:
    from sparity_edge.system.version import own_version

    about = machine(case.configuration.threads)
    task = case.task
    return {
        "version": own_version(),
        "test_time": about["date"],
        "system": about["system"],
        "python": about["python"],
        "packages": about["packages"],
        "cpu_info": about["cpu"],
        "cpu_features": about["cpu_features"],
        "physical_cores": about["physical_cores"],
        "memory_bytes": about["memory_bytes"],
        "model": info["source"],
        "model_type": info["model_type"],
        "model_n_params": info["parameters"],
        "model_size": info["weight_bytes"],
        "dtype": "/".join(info["dtypes"]),
        "layout": (info["options"] or {}).get("layout"),
        "cache_dtype": info["cache_dtype"],
        "n_threads": case.configuration.threads,
        "plan": info.get("plan"),
        "level": _maybe(info.get("level")),
        "sparsity": short(info["sparsity"]),
        "test": task.name,
        "n_prompt": task.prompt,
        "n_gen": task.later,
        "n_depth": task.depth,
        "n_together": task.together,
        "n_read": task.read,
    }


def speeds(case: Case, base: Case, rounds: Sequence[Round]) -> dict[str, Any]:
    """What was timed of a case.

    Args:
        case: of the row.
        base: the same task on the first configuration.
        rounds: complete ones, at least one.
    """
    timings: list[Timing] = [each[case] for each in rounds]
    samples = [tokens_a_second(case.task, each) for each in timings]
    others = [tokens_a_second(case.task, each[base]) for each in rounds]
    first = [1000 * each.first for each in timings] if case.task.prompt else []
    later = [1000 * gap for each in timings for gap in each.later]
    return {
        "rounds": len(rounds),
        "avg_ts": short(statistics.fmean(samples)),
        "stddev_ts": short(deviation(samples)),
        "ratio": short(statistics.median(ratios(samples, others))),
        "ttft_ms": _maybe(statistics.median(first) if first else None),
        "tpot_ms": _maybe(statistics.median(later) if later else None),
        "tpot_p99_ms": _maybe(percentile(later, 99) if later else None),
        "active_weight_fraction": short(statistics.fmean(each.active for each in timings)),
        "samples_ts": [short(value) for value in samples],
        "samples_ttft_ms": [short(value) for value in first],
        "samples_tpot_ms": [short(value) for value in later],
    }


def price(case: Case, rounds: Sequence[Round]) -> float | None:
    """How many times a pass over one token a pass costs; None: that was not measured."""
    one = replace(case, task=replace(case.task, read=1))
    if not case.task.read or one not in rounds[0]:
        return None
    return float(statistics.median(each[case].first / each[one].first for each in rounds))


def price_list(case: Case, cases: Sequence[Case], rounds: Sequence[Round]) -> PriceList:
    """All prices of the configuration of a case, for speculation."""
    found: dict[int, dict[int, float]] = {}
    for each in cases:
        paid = price(each, rounds) if each.configuration == case.configuration else None
        if paid is not None and each.task.read > 1:
            found.setdefault(each.task.read, {})[each.task.depth] = round(paid, 3)
    return found


def ceiling(case: Case, rounds: Sequence[Round], reads: int) -> dict[str, Any]:
    """How near decoding comes to streaming through the `reads` bytes of a token."""
    streaming = [each[case.configuration.threads] for each in rounds]
    spent = [statistics.fmean(each[case].later) for each in rounds]
    share = ratios([reads / speed / 1e9 for speed in streaming], spent)
    return {
        "streaming_gb_s": short(statistics.median(streaming)),
        "of_streaming": short(statistics.median(share)),
        "samples_streaming_gb_s": [short(value) for value in streaming],
    }


def tokens_a_second(task: Task, found: Timing) -> float:
    """Tokens that were timed / seconds that they took."""
    return task.tokens / ((found.first if task.prompt or task.read else 0.0) + sum(found.later))


def _maybe(value: float | None) -> float | None:
    return None if value is None else short(value)
