"""Which plan is followed where skipping is asked for: by speed measured here and by KL."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packing import pack_folder
from plan_families import family
from tiny_cases import PLANNED

from sparity_edge import Generator, SamplingParams
from sparity_edge.errors import NoPlanError, OptionError, SparityError, TooLossyError
from sparity_edge.measure import dial, gains_kept
from sparity_edge.measure.gain import Gain, measure_apart, measure_gain
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import add_plan, plan_names, read_plan

Make = Callable[..., Path]
CHEAP = ((0.1, 0.01), (0.3, 0.03), (0.5, 0.3))  # (sparsity, KL)
DEAR = ((0.1, 0.05), (0.3, 0.2))


@pytest.fixture
def make(checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: Any) -> Make:
    """make(plan=evidence, ...) -> a packed folder of layout mixed that carries these plans."""
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))

    def folder(**plans: Any) -> Path:
        path = pack_folder(checkpoint(PLANNED), tmp_path / "model", "f32", "mixed")
        made = family(open_packed(path), "mixed")
        for name, evidence in plans.items():
            rows = [{"sparsity": s, "active": 1 - s, "kl": kl} for s, kl in evidence]
            add_plan(
                open_folder(path), dataclasses.replace(made, name=name, notes={"evidence": rows})
            )
        return path

    return folder


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """Plan -> its gain, in the place of a measurement; those measured are taken out."""
    known: dict[str, float] = {}

    def measured(_: Any, sparse: Generator, __: Any) -> Gain:
        ratio = known.pop(str(sparse.plan))
        return Gain(ratio, 10.0, 10.0 * ratio)

    monkeypatch.setattr(dial, "measure_gain", measured)
    yield known
    assert not known, "a plan was not measured"


def loaded(path: Path, **asked: Any) -> tuple[str | None, str]:
    """The plan in force after loading, and what is said of it."""
    with Generator.load(path, threads=1, **asked) as generator:
        assert generator.loaded.sparsity_choice is not None
        return generator.plan, str(generator.sparsity_choice)


def test_a_plan_that_gains_is_followed_and_measured_once(
    make: Make, speeds: dict[str, float]
) -> None:
    path = make(auto=CHEAP)
    speeds["auto"] = 1.24
    expected = ("auto", "skips 30 %, 1.24x as fast, KL 0.03 (plan auto)")
    assert loaded(path, sparsity=0.3) == expected
    assert loaded(path, sparsity=0.3) == expected


def test_decoding_is_never_slower_but_where_a_level_or_force_asks_for_it(
    make: Make, speeds: dict[str, float]
) -> None:
    path = make(auto=CHEAP)
    speeds["auto"] = 0.84
    plan, line = loaded(path, sparsity=0.3)
    assert plan is None
    assert line == (
        "skips nothing: plan auto at 30 % would be 0.84x as fast as dense decoding here, "
        "KL 0.03; force=True follows it all the same"
    )
    slower = "skips 30 %, 0.84x as fast (slower than dense decoding), KL 0.03 (plan auto)"
    assert loaded(path, sparsity=0.3, force=True) == ("auto", slower)
    assert loaded(path, level=0.6)[1] == slower


def test_what_loses_much_needs_force_unless_it_would_not_be_followed_anyway(
    make: Make, speeds: dict[str, float]
) -> None:
    path = make(auto=CHEAP)
    speeds["auto"] = 1.5
    with pytest.raises(TooLossyError, match=r"KL of 0\.30 .* more than 0\.1, .* at 0\.35; force"):
        Generator.load(path, threads=1, sparsity=0.5)
    assert loaded(path, sparsity=0.5, force=True)[0] == "auto"
    with Generator.load(path, threads=1) as generator:
        with pytest.raises(TooLossyError):
            generator.set_plan(sparsity=0.5)
        with pytest.raises(TooLossyError):
            generator.sparsity = 0.5
        generator.set_plan(sparsity=0.5, force=True)
        assert generator.sparsity == pytest.approx(0.5)
    speeds["auto"] = 0.9
    with Generator.load(path, threads=2, sparsity=0.5) as generator:
        assert generator.plan is None


def test_the_fastest_of_those_that_lose_little_is_chosen(
    make: Make, speeds: dict[str, float]
) -> None:
    path = make(auto=CHEAP, dear=DEAR, other=((0.3, 0.02),), unknown=())
    speeds |= {"auto": 1.3, "other": 1.1}  # the others are no choice, and not measured
    assert loaded(path, sparsity=0.3)[0] == "auto"
    speeds |= {"auto": 1.3, "other": 1.29}
    with Generator.load(path, threads=2, sparsity=0.3) as generator:
        assert generator.plan == "other"  # as fast, and loses less
    with pytest.raises(NoPlanError, match="carries no plan 'nobody'"):
        Generator.load(path, threads=1, sparsity=0.3, plan="nobody")
    with pytest.raises(OptionError, match="reaches from 0 to"):
        Generator.load(path, threads=1, sparsity=0.8)


def test_what_a_plan_changes_is_measured_once_when_it_is_first_followed(
    make: Make, speeds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(auto=CHEAP, unknown=())
    speeds["unknown"] = 1.1
    notes: list[str] = []
    with pytest.raises(TooLossyError):  # weights are random
        Generator.load(path, threads=1, sparsity=0.3, plan="unknown", notify=notes.append)
    assert [note for note in notes if "held-out text what plan unknown changes" in note]
    evidence = read_plan(open_folder(path), "unknown").notes["evidence"]
    assert [each["sparsity"] for each in evidence] == pytest.approx(
        [0.1, 0.2, 0.3][: len(evidence)]
    )
    assert all(each["kl"] > 0 for each in evidence)
    monkeypatch.setattr("converters.plan_evidence.measure", None)
    plan, line = loaded(path, sparsity=0.3, plan="unknown", force=True)
    assert plan == "unknown"
    assert "KL 0." in line


def test_a_folder_that_cannot_be_written_is_followed_unmeasured(
    make: Make, speeds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(unknown=())
    monkeypatch.setattr("converters.plan_evidence.os.access", lambda *_: False)
    speeds["unknown"] = 1.1
    plan, line = loaded(path, sparsity=0.3, plan="unknown")
    assert plan == "unknown"
    assert "KL not measured" in line


def test_another_pack_is_decoded_densely_where_there_is_one(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    speeds: dict[str, float],
) -> None:  # fmt: skip
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    from converters.pack_options import PackOptions
    from converters.store import prepare

    model = checkpoint(PLANNED)
    path = prepare(str(model), PackOptions(layout="mixed"))
    rows = [{"sparsity": s, "active": 1 - s, "kl": kl} for s, kl in CHEAP]
    made = family(open_packed(path), "mixed")
    add_plan(open_folder(path), dataclasses.replace(made, name="auto", notes={"evidence": rows}))
    assert plan_names(path) == ["auto"]
    speeds["auto"] = 0.5
    with Generator.load(model, threads=1, sparsity=0.3) as generator:
        assert generator.path == prepare(str(model), PackOptions())
        assert generator.plan is None
    with Generator.load(model, threads=1, sparsity=0.3, force=True) as generator:
        assert generator.path == path
    monkeypatch.setattr(dial, "measure_apart", lambda *_: Gain(1.2, 1.0, 1.2))
    monkeypatch.setattr(dial, "SPARE_BYTES", 1 << 60)  # no room for two packs
    with Generator.load(model, threads=2, sparsity=0.3) as generator:
        assert generator.path == path


def test_a_gain_is_measured(planned: Path) -> None:
    with Generator.load(planned, threads=1) as sparse, sparse.twin() as dense:
        sparse.set_plan(sparsity=0.4)
        told: list[str] = []
        gain = measure_gain(dense, sparse, lambda label, _, __: told.append(label))
        assert 0.1 < gain.ratio < 10
        assert gain.dense > 0 < gain.sparse
        assert set(told) == {"Measuring what sparsity gains here (once)"}
        assert len(sparse.loaded.model.kv_cache) == 0
        params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
        assert sparse.generate([5, 6, 7], params).token_ids
    apart = measure_apart({"dense": [2.0, 1.0, 3.0]}, {"sparse": [1.0]})
    assert apart == Gain(2.0, 0.5, 1.0)


def test_kept_gains_that_are_damaged_or_of_elsewhere_are_passed_over(
    make: Make, speeds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(auto=CHEAP)
    speeds["auto"] = 1.2
    loaded(path, sparsity=0.3)
    ((conditions, gain),) = gains_kept.kept_of(path)
    assert (conditions.plan, conditions.sparsity, gain.ratio) == ("auto", 0.3, 1.2)
    assert list(gains_kept.kept_of(path, "other")) == []
    file = conditions.file()
    content = json.loads(file.read_text())
    for damage in (
        b"", b"[" * 5000, b"[1]", b'{"gain": {}}',
        json.dumps({**content, "gain": {"ratio": -1, "dense": 1, "sparse": 1}}).encode(),
        json.dumps({**content, "gain": {"ratio": "x"}}).encode(),
        json.dumps({**content, "conditions": {"sparse": 3}}).encode(),
    ):  # fmt: skip
        file.write_bytes(damage)
        assert gains_kept.find(conditions) is None
        assert list(gains_kept.kept_of(path)) == []
    gains_kept.keep(conditions, gain)
    assert gains_kept.find(conditions) == gain
    monkeypatch.setattr(gains_kept, "this_machine", lambda: "another")
    assert list(gains_kept.kept_of(path)) == []
    with pytest.raises(SparityError, match="carries no plan"):
        gains_kept.plan_sha256(path, "nobody")
