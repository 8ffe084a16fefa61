"""`/sparsity`: shares, names of plans, and the offer to make a plan that is not there."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeGenerator, ScriptedInput
from packing import contents, pack_folder

from converters import ready
from sparity_edge import Generator, SamplingParams
from sparity_edge.chat.repl import run
from sparity_edge.chat.session import ChatSession
from sparity_edge.chat.sparsity import in_force, understood
from sparity_edge.cli.commands.chat_plans import ChatPlans
from sparity_edge.errors import NoPlanError, OptionError, TooLossyError
from sparity_edge.plans.plan_file import plan_names
from sparity_edge.plans.sparsity_choice import SparsityChoice
from sparity_edge.terminal.screen import Screen

TOKENS = 4 * 256


class WithPlans(FakeGenerator):
    """Carries the plans that it is given."""

    def __init__(self, *carried: str) -> None:
        super().__init__()
        self.carried = carried

    def set_plan(self, name: str | None = None, *, sparsity: float, force: bool = False) -> None:
        if sparsity and (name or "auto") not in self.carried:
            raise NoPlanError("no such plan", name or "auto")
        if sparsity > 0.5 and not force:
            raise TooLossyError("That has a KL of 0.3", "force=True follows it all the same")
        super().set_plan(name, sparsity=sparsity, force=force)


class FakePlans:
    """Makes any plan that is not called "bad"; `made` are there already."""

    def __init__(self, made: Sequence[str] = (), fault: BaseException | None = None) -> None:
        self.made, self.fault = made, fault
        self.asked: list[tuple[str | None, float, bool]] = []
        self.loaded: list[WithPlans] = []

    def names(self) -> Sequence[str]:
        return ["auto", "chess"]

    def seconds(self, plan: str | None, _: Any) -> float:
        if plan == "bad":
            raise OptionError("There is no plan bad.")
        return 0.0 if plan in self.made else 150.0

    def load(self, plan: str | None, share: float, _: Any, force: bool) -> Any:
        self.asked.append((plan, share, force))
        if self.fault:
            raise self.fault
        self.loaded.append(WithPlans(plan or "auto"))
        self.loaded[-1].set_plan(plan, sparsity=share, force=force)
        return self.loaded[-1]


def talk(
    *typed: str, plans: Any = None, says: bool | None = None, carried: Sequence[str] = ()
) -> tuple[ChatSession, FakeGenerator, str]:
    written = io.StringIO()
    first = WithPlans(*carried)

    def confirm(question: str) -> bool:
        written.write(question + "\n")
        return bool(says)

    session = ChatSession(
        first,  # type: ignore[arg-type]
        SamplingParams(),
        "Be brief.",
        Screen(written, written),
        plans=plans,
        confirm=None if says is None else confirm,
    )
    run(session, ScriptedInput(*typed))
    return session, first, " ".join(written.getvalue().split())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.3", (None, 0.3, False)),
        ("30%", (None, 0.3, False)),
        ("off", (None, 0.0, False)),
        ("chess", ("chess", 0.5, False)),
        ("auto 0.4", ("auto", 0.4, False)),
        ("0.4  auto", ("auto", 0.4, False)),
        ("0.4 force", (None, 0.4, True)),
        ("force auto 0.4", ("auto", 0.4, True)),
    ],
)
def test_shares_and_plans_in_any_order(text: str, wanted: tuple[str | None, float, bool]) -> None:
    assert understood(text, 0.5) == wanted


def test_a_plan_alone_begins_with_a_share() -> None:
    assert understood("chess", 0.0) == ("chess", 0.3, False)


@pytest.mark.parametrize("text", ["0.3 0.4", "auto chess", "0,3", "--plan auto"])
def test_what_is_neither_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(OptionError, match="/sparsity takes a share"):
        understood(text, 0.0)


def test_plans_that_are_there_are_followed_at_once() -> None:
    session, first, written = talk("/sparsity chess 0.4", "/sparsity off", carried=("chess",))
    assert session.generator is first
    assert "40% of the weights are skipped by plan chess." in written
    assert written.endswith("0% of the weights are skipped.")


def test_a_plan_that_is_missing_is_offered_and_the_conversation_goes_on() -> None:
    plans = FakePlans()
    session, first, written = talk("one", "/sparsity 0.3", "two", plans=plans, says=True)
    assert "roughly 3 minutes on 2 threads; Ctrl-C stops it" in written
    assert "Calibrate now?" in written
    assert "30% of the weights are skipped by plan auto." in written
    assert plans.asked == [(None, 0.3, False)]
    assert first.closed
    assert session.generator is plans.loaded[0]
    assert [each["content"] for each in plans.loaded[0].prompts[0]] == [
        "Be brief.", "one", "You said: one", "two",
    ]  # fmt: skip


def test_a_no_and_nobody_to_ask_change_nothing() -> None:
    for says in (False, None):
        plans = FakePlans()
        session, first, written = talk("/sparsity chess 0.3", plans=plans, says=says)
        assert session.generator is first
        assert not first.closed
        assert not plans.asked
        assert "no plan chess" in written
        assert "--" not in written


def test_a_plan_that_was_made_before_is_loaded_without_a_question() -> None:
    plans = FakePlans(made=["chess"])
    _, _, written = talk("/sparsity chess 0.3", plans=plans)
    assert "Calibrat" not in written
    assert "30% of the weights are skipped by plan chess." in written


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (KeyboardInterrupt(), "Stopped; the conversation goes on as it was."),
        (OptionError("Too little text."), "Too little text."),
        (MemoryError(), "not enough memory for plan auto"),
        (OSError(28, "No space left on device"), "No space left on device."),
    ],
)
def test_ctrl_c_and_faults_keep_the_chat(fault: BaseException, told: str) -> None:
    plans = FakePlans(fault=fault)
    session, first, written = talk("one", "/sparsity 0.3", "two", plans=plans, says=True)
    assert session.generator is first
    assert not first.closed
    assert "You said: two" in written
    assert told in written


def test_what_loses_much_is_refused_with_the_words_that_follow_it_all_the_same() -> None:
    plans = FakePlans(made=["chess"])
    session, first, written = talk("/sparsity chess 0.6", "one", plans=plans)
    assert session.generator is first
    assert "That has a KL of 0.3; /sparsity 0.6 force follows it all the same." in written
    assert "You said: one" in written
    session, _, written = talk("/sparsity chess 0.6 force", plans=plans)
    assert session.generator is plans.loaded[-1]
    _, first, written = talk("/sparsity chess 0.6", carried=["chess"])
    assert "/sparsity 0.6 force" in written
    assert first.plan is None


def test_what_became_of_a_wish_is_told() -> None:
    plans = FakePlans(made=["chess"])
    session, _, _ = talk("/sparsity chess 0.3", plans=plans)
    session.generator.sparsity_choice = SparsityChoice("chess", 0.3, 0.014, 1.24, followed=True)  # type: ignore[misc]
    assert in_force(session) == "Sparsity: skips 30 %, 1.24x as fast, KL 0.014 (plan chess)."
    session.generator.sparsity_choice = SparsityChoice("chess", 0.3, 0.12, 0.84, followed=False)  # type: ignore[misc]
    assert in_force(session) == (
        "Sparsity: skips nothing: plan chess at 30 % would be 0.84x as fast as dense decoding "
        "here, KL 0.12; /sparsity 0.3 force follows it all the same."
    )


def test_an_unknown_plan_is_refused_before_any_question() -> None:
    _, _, written = talk("/sparsity bad 0.3", "/sparsity", plans=FakePlans(), says=True)
    assert written.startswith("There is no plan bad.")
    assert "Calibrate now?" not in written
    assert "plans: auto, chess." in written


def real(model: Path, monkeypatch: pytest.MonkeyPatch, *typed: str) -> tuple[ChatSession, str]:
    """A chat with a tiny model in which this is typed and every question is answered by yes."""
    monkeypatch.setattr(ready, "TOKENS", TOKENS)
    written = io.StringIO()
    screen = Screen(written, written)
    arguments = Namespace(
        model=str(model), dtype=None, threads=2, sparsity=None, plan=None, level=None,
        sparse_prefill=False, max_context=128, cache_dtype="f32", offline=True, verbose=0,
        force=False, full_head=False, speculation=True, draft=None,
    )  # fmt: skip
    generator = Generator.load(model, threads=2, max_context=128, cache_dtype="f32")
    params = SamplingParams(temperature=0, max_tokens=4)
    session = ChatSession(
        generator, params, None, screen,
        plans=ChatPlans(arguments, screen), confirm=lambda _: True,
    )  # fmt: skip
    run(session, ScriptedInput(*typed))
    session.generator.close()
    generator.close()
    return session, " ".join(written.getvalue().split())


def test_a_real_model_gets_its_plan_within_the_chat(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checkpoint("llama_gqa")
    session, written = real(
        model, monkeypatch, "a", "/sparsity teal 0.2 force", "b", "/sparsity tael"
    )
    assert "skips 20 %, " in written
    assert len(session.conversation.messages) == 4
    assert "Did you mean teal?" in written
    assert (session.generator.max_context, session.generator.threads) == (128, 2)
    assert session.generator.info()["cache_dtype"] == "f32"
    _, written = real(model, monkeypatch, "/sparsity teal 0.2 force")
    assert "has no plan" not in written


def test_a_packed_folder_gets_the_plan_itself_or_a_pack_that_can_carry_it(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pack_folder(checkpoint("llama_gqa"), tmp_path / "neurons", "int8", "neurons")
    session, written = real(folder, monkeypatch, "/sparsity chess 0.2 force")
    assert plan_names(folder) == ["chess"]
    assert session.generator.path == folder
    assert "skips 20 %, " in written
    dense = pack_folder(checkpoint("llama_gqa"), tmp_path / "dense", "int8")
    before = contents(dense)
    session, written = real(
        dense, monkeypatch, "a", "/sparsity chess 0.2 force", "b", "/sparsity off"
    )
    assert "skips 20 %, " in written
    assert "--layout" not in written
    assert len(session.conversation.messages) == 4
    assert contents(dense) == before
    _, written = real(dense, monkeypatch, "/sparsity chess 0.2 force")
    assert "has no plan" not in written
    assert "skips 20 %, " in written


def test_the_time_that_is_told_grows_with_the_model_and_shrinks_with_threads() -> None:
    two = ready.calibration_seconds("auto", 134_515_008, 2)
    assert 20 < two < 100
    assert ready.calibration_seconds("auto", 134_515_008, 1) == 2 * two
    assert ready.calibration_seconds("auto", 10 * 134_515_008, 2) == pytest.approx(10 * two)
    assert ready.calibration_seconds("teal-greedy", 134_515_008, 2) > 10 * two
