"""Figures of a row: speeds, ratios and shares of the bandwidth, from hand-made timings."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest

from sparity_edge.measure import figures
from sparity_edge.measure.cases import Case, Configuration, Task
from sparity_edge.measure.decoding import Timing


def test_figures_of_hand_made_rounds() -> None:
    task = Task(0, 4)
    slow, quick = (Case(Configuration(None, threads), task) for threads in (1, 2))
    found: list[dict[Any, Any]] = [
        {slow: Timing(9.0, (0.2,) * 4, 1.0), quick: Timing(9.0, (0.1,) * 4, 0.5), 1: 10, 2: 20},
        {slow: Timing(9.0, (0.4,) * 4, 1.0), quick: Timing(9.0, (0.1, 0.1, 0.1, 0.5), 0.7),
         1: 5, 2: 40},
    ]  # fmt: skip
    row = figures.speeds(quick, slow, found)
    assert row["samples_ts"] == [10, 5]
    assert row["avg_ts"] == 7.5
    assert row["stddev_ts"] == pytest.approx(statistics.stdev([10, 5]), rel=1e-5)
    assert row["ratio"] == 2  # 10 / 5 and 5 / 2.5
    assert row["ttft_ms"] is None
    assert row["tpot_ms"] == 100
    assert row["tpot_p99_ms"] == pytest.approx(np.percentile([100] * 7 + [500], 99))
    assert row["active_weight_fraction"] == 0.6
    assert len(row["samples_tpot_ms"]) == 8
    share = figures.ceiling(quick, found, 10**9)  # 1/20 and 1/40 s at best; 0.1 and 0.2 s
    assert (share["of_streaming"], share["streaming_gb_s"]) == (0.3125, 30)
    prompt = Case(Configuration(None, 1), Task(64, 2))
    row = figures.speeds(prompt, prompt, [{prompt: Timing(0.5, (0.25, 0.25), 1.0)}])
    assert (row["avg_ts"], row["ttft_ms"], row["stddev_ts"]) == (66, 500, 0)
