"""`/sparsity`: how much is skipped by which plan, and the offer to make a plan that is missing.

Knows plans by their names and the model by what the session holds; who makes plans, and of what, is
the `PlanMaker`'s concern.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sparity_edge.choices import DEFAULT_PLAN
from sparity_edge.errors import OptionError, ResourceError, TooLossyError, library_words

if TYPE_CHECKING:
    from sparity_edge.chat.plan_maker import PlanMaker
    from sparity_edge.chat.session import ChatSession

FORCE = "force"  # the word that asks for a plan whatever it gains and costs
FIRST_SHARE = 0.3  # where only a plan is named and nothing is skipped so far


def understood(text: str, present: float) -> tuple[str | None, float, bool]:
    """The plan and the share of the weights that are asked for, in any order, and if by force.

    Args:
        text: such as "0.3", "30%", "chess", "auto 0.4 force" or "off".
        present: the share that is skipped so far.

    Raises:
        OptionError: that is no share and no name of a plan.
    """
    shares: list[float] = []
    names: list[str] = []
    words = text.split()
    force = FORCE in words
    for word in words:
        if word == FORCE:
            continue
        share = _share(word)
        if share is None:
            names.append(word)
        else:
            shares.append(share)
    if len(shares) > 1 or len(names) > 1 or not all(map(_is_name, names)):
        raise OptionError(
            f"/sparsity takes a share from 0 to 0.9, the name of a plan, or both, not {text}; "
            f"/sparsity off reads all weights, and {FORCE} follows a plan that is slow or lossy."
        )
    return next(iter(names), None), next(iter(shares), present or FIRST_SHARE), force


def follow(session: ChatSession, plan: str | None, share: float, force: bool) -> None:
    """Skip a share of the weights from the next reply on, where that makes replies faster.

    Offers to make a plan that is missing.

    Args:
        session: whose generator it is for.
        plan: its name; None: the one that makes replies fastest.
        share: of the weights.
        force: whether it is to be followed whatever it gains and costs.

    Raises:
        SparityError: it cannot be; everything is as before.
    """
    if share == 0:
        session.generator.set_plan(sparsity=0)
        return
    try:
        if session.plans is None:
            session.generator.set_plan(plan, sparsity=share, force=force)
        else:
            _load(session, session.plans, plan, share, force)
    except TooLossyError as error:
        way = f"/sparsity {share:g} {FORCE} follows it all the same"
        raise OptionError(f"{error.finding}; {way}.") from None


def in_force(session: ChatSession) -> str:
    """What is skipped at present."""
    generator = session.generator
    if (choice := generator.sparsity_choice) is not None:
        return f"Sparsity: {choice.line(f'/sparsity {choice.sparsity:g} {FORCE}')}."
    follows = f" by plan {generator.plan}" if generator.plan else ""
    skipped = f"{generator.sparsity:.0%} of the weights are skipped{follows}."
    always = generator.info().get("always_skipped")
    return f"{skipped} In any case {always} are not read." if always else skipped


def on_offer(session: ChatSession) -> str:
    """Which plans there are to choose from."""
    names = session.plans.names() if session.plans else list(session.generator.plans())
    if not names:
        return "The model has no plans that skip weights."
    return f"/sparsity {FIRST_SHARE} PLAN skips weights; plans: {', '.join(names)}."


def _load(
    session: ChatSession, plans: PlanMaker, plan: str | None, share: float, force: bool
) -> None:
    missing = plan or DEFAULT_PLAN
    seconds = plans.seconds(plan, session.generator)
    if seconds and not _agreed(session, missing, seconds):
        return
    try:
        session.replace_generator(plans.load(plan, share, session.generator, force))
    except KeyboardInterrupt:
        session.screen.text("\n")  # the terminal has written ^C
        session.screen.note(
            "Stopped; the conversation goes on as it was. Calibrating again goes on from here."
        )
    except MemoryError:
        raise ResourceError(
            f"There is not enough memory for plan {missing} beside the chat; sparity-edge "
            "calibrate, without a chat beside it, needs less."
        ) from None
    except OSError as error:
        raise ResourceError(f"Plan {missing} cannot be made: {library_words(error)}.") from error


def _agreed(session: ChatSession, plan: str, seconds: float) -> bool:
    """Whether the user wants to wait for a plan.

    Raises:
        OptionError: there is nobody to ask.
    """
    if session.confirm is None:
        raise OptionError(
            f"The model has no plan {plan}; sparity-edge calibrate makes it, and so does "
            "/sparsity at a terminal."
        )
    threads = session.generator.threads
    session.screen.note(
        f"The model has no plan {plan} yet. Calibrating makes one, once, in roughly "
        f"{_minutes(seconds)} on {threads} thread{'s' * (threads != 1)}; Ctrl-C stops it and the "
        "conversation goes on."
    )
    return session.confirm("Calibrate now?")


def _minutes(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    if minutes > 90:
        return f"{minutes / 60:.0f} hours"
    return "a minute" if minutes == 1 else f"{minutes} minutes"


def _share(word: str) -> float | None:
    """The share that a word stands for; None where it is no number."""
    if word.lower() in ("off", "dense", "none"):
        return 0.0
    try:
        share = float(word.removesuffix("%"))
    except ValueError:
        return None
    return share / 100 if word.endswith("%") else share


def _is_name(word: str) -> bool:
    return word[:1].isalpha()
