"""Tasks in this process, in several and on a Dask cluster: the same results, whoever is killed."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fan_workers import squares

from converters.calibrate import calibrate
from converters.fan_out import ALONE, Spread, fan_out
from sparity_edge.errors import OptionError, ResourceError, SourceError

TASKS = [3, 1, 2, 5, 8, 13]
NEEDS_KILL = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL to send")
# Dask and its tornado warn of what their own code does.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(params=["here", "processes", "cluster"])
def spread(request: pytest.FixtureRequest) -> Spread:
    if request.param == "here":
        return ALONE
    if request.param == "processes":
        pytest.importorskip("joblib", reason="the extra [parallel] is not installed")
        return Spread(workers=2)
    return Spread(cluster=request.getfixturevalue("cluster"))


def test_results_come_in_the_order_of_the_tasks(spread: Spread, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with fan_out(partial(squares, tmp_path), spread, 1) as workers:
        for _ in range(2):
            early: dict[int, Any] = {}
            told_of = lambda *each: told.append(each)  # noqa: E731
            results = workers.run(TASKS, told_of, "squaring", early.__setitem__)
            assert [early[index] for index in range(len(TASKS))] == results
            assert [square for square, _ in results] == [9, 1, 4, 25, 64, 169]
        assert workers.run([]) == []
    assert told[0] == ("squaring", 0, 6)
    assert ("squaring", 6, 6) in told
    opened = len(list(tmp_path.glob("opened-*")))
    assert 1 <= opened <= (1 if spread.here else 2), "a worker is opened once"


def test_a_fault_of_a_task_is_told_as_it_is(spread: Spread, tmp_path: Path) -> None:
    with (
        fan_out(partial(squares, tmp_path), spread, 1) as workers,
        pytest.raises(SourceError, match="-1 cannot be squared"),
    ):
        workers.run([1, 2, -1, 3])


@NEEDS_KILL
def test_a_worker_that_is_killed_costs_its_task_only(spread: Spread, tmp_path: Path) -> None:
    if spread.here:
        return
    (tmp_path / "fatal-5").write_text("once")
    with fan_out(partial(squares, tmp_path), spread, 1) as workers:
        assert [square for square, _ in workers.run(TASKS)] == [9, 1, 4, 25, 64, 169]
        assert [square for square, _ in workers.run([4])] == [16]
    assert not (tmp_path / "fatal-5").exists()


@NEEDS_KILL
def test_a_task_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="the extra [parallel] is not installed")
    (tmp_path / "fatal-5").write_text("always")
    with (
        fan_out(partial(squares, tmp_path), Spread(workers=2), 1) as workers,
        pytest.raises(ResourceError, match="use fewer workers"),
    ):
        workers.run([5])


def test_threads_are_divided(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="the extra [parallel] is not installed")
    with fan_out(partial(squares, tmp_path), Spread(workers=2), 5) as workers:
        assert workers.run([1]) == [(1, 2)]
    with fan_out(partial(squares, tmp_path), ALONE, 5) as workers:
        assert workers.run([1]) == [(1, 5)]


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, 1000])
def test_a_number_of_workers_has_to_make_sense(workers: Any) -> None:
    with pytest.raises(OptionError, match="workers="):
        Spread(workers=workers)


def test_a_cluster_has_workers_of_its_own() -> None:
    with pytest.raises(OptionError, match="either"):
        Spread(workers=2, cluster="tcp://localhost:8786")


@pytest.mark.parametrize(
    ("spread", "package", "remedy"),
    [
        (Spread(workers=2), "joblib.externals", r"sparity-edge\[parallel\]"),
        (Spread(cluster="tcp://localhost:8786"), "distributed", r"sparity-edge\[cluster\]"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(
    spread: Spread, package: str, remedy: str, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OptionError, match=remedy), fan_out(partial(squares, tmp_path), spread, 1):
        pass
    with pytest.raises(OptionError, match=remedy):
        spread.demand()
    with pytest.raises(OptionError, match=remedy):
        calibrate("no-model", workers=spread.workers, cluster=spread.cluster)


def test_no_scheduler(monkeypatch: Any, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    monkeypatch.setattr("converters.fan_out.cluster.CONNECT_SECONDS", 1)
    spread = Spread(cluster="tcp://127.0.0.1:9")
    with (
        pytest.raises(OptionError, match="No Dask scheduler answers"),
        fan_out(partial(squares, tmp_path), spread, 1),
    ):
        pass
    with pytest.raises(OptionError, match="No Dask scheduler answers"):
        calibrate("no-model", cluster=spread.cluster)


def test_a_cluster_of_another_version(cluster: str, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("converters.fan_out.cluster.own_version", lambda: "0.0.0")
    with (
        pytest.raises(OptionError, match="install the same one"),
        fan_out(partial(squares, tmp_path), Spread(cluster=cluster), 1),
    ):
        pass
