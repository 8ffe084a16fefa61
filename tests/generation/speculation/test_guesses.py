"""Guesses by passages that stood there before, their chances, and how many of them are read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparity_edge.generation.speculation.chances import Chances
from sparity_edge.generation.speculation.ngrams import LENGTHS, LONGEST, PRIOR, SHORTEST, NGrams
from sparity_edge.generation.speculation.pace import FIRST_CREDIT, LEAST_CREDIT, Pace
from sparity_edge.generation.speculation.prices import LATEST, SIZES, PriceList, Prices


class Book:
    """A price list in memory."""

    def __init__(self, prices: PriceList | None = None) -> None:
        self.prices: PriceList = prices or {}

    def find(self) -> PriceList:
        return self.prices

    def keep(self, prices: PriceList) -> None:
        self.prices = dict(prices)


LIST = {2: {0: 1.2, 1000: 1.6}, 4: {0: 1.4, 1000: 1.8}, 8: {0: 2.0, 1000: 3.0}}
Texts = st.lists(st.integers(0, 3), max_size=60)


def longest_passage(ids: Sequence[int]) -> int:
    """Tokens that the text ends with and that stand somewhere before, up to LONGEST."""
    for length in range(min(LONGEST, len(ids) - 1), SHORTEST - 1, -1):
        ending = list(ids[-length:])
        if any(list(ids[at : at + length]) == ending for at in range(len(ids) - length)):
            return length
    return 0


@given(Texts, Texts)
def test_guesses_go_on_as_the_text_did(prompt: list[int], answer: list[int]) -> None:
    source, ids = NGrams(prompt), list(prompt)
    for token in answer:
        draft = source.draft(7)
        found = longest_passage(ids)
        assert bool(draft.ids) == (found > 0)
        if draft.ids:
            assert len(draft.ids) == len(draft.chances) == 7
            assert all(0 < chance < 1 for chance in draft.chances)
            behind = [*ids, *draft.ids]
            # At least two tokens and the guesses behind them are what the text has elsewhere.
            assert any(
                behind[at - SHORTEST : at + 7] == behind[len(ids) - SHORTEST :]
                for at in range(SHORTEST, len(ids))
            )
        source.follow(token)
        ids.append(token)


def test_the_longest_passage_is_followed_and_the_latest_of_equals() -> None:
    assert NGrams([1, 2, 3, 7, 2, 3, 8, 1, 2, 3]).draft(2).ids == [7, 2]
    assert NGrams([1, 2, 7, 1, 2, 8, 1, 2]).draft(3).ids == [8, 1, 2]
    assert NGrams([5, 6, 5, 6]).draft(5).ids == [5, 6, 5, 6, 5]
    assert NGrams([4, 4, 4]).draft(4).ids == [4, 4, 4, 4]
    assert NGrams([1, 2, 3]).draft(4).ids == ()
    assert NGrams([]).draft(4).ids == ()


def test_chances_follow_what_is_seen() -> None:
    source = NGrams(range(3, 60))
    for token in (3, 4, 5, 6, 7):
        source.follow(token)
    certain = source.draft(7).chances
    assert all(certain[index] <= certain[index + 1] + 0.2 for index in range(6))
    chances = Chances(PRIOR)
    assert [chances.of(kind) for kind in range(len(LENGTHS))] == pytest.approx(PRIOR)
    for _ in range(50):
        chances.note(0, True)
        chances.note(6, False)
    assert chances.of(0) > 0.8
    assert chances.of(6) < 0.25


def ready(_size: int) -> bool:
    return True


def test_as_many_are_read_as_pay() -> None:
    pace = Pace(Prices(Book(LIST)))
    assert pace.size([0.95] * 7, 0, 99, ready) == 8
    assert pace.size([0.95] * 7, 0, 7, ready) == 6, "there is no room for eight"
    assert pace.size([0.8, 0.6, 0.4, 0.3, 0.3, 0.3, 0.3], 0, 99, ready) == 4
    assert pace.size([0.3] * 7, 0, 99, ready) == 2
    assert pace.size([0.3] * 7, 1000, 99, ready) == 1, "passes are dearer behind a long context"
    assert pace.size([0.1] * 7, 0, 99, ready) == 1
    assert pace.size([], 0, 99, ready) == 1
    assert Pace(Prices(Book({size: {0: 0.9 * size} for size in SIZES}))).size(
        [0.8] * 7, 0, 99, ready
    ) == 1, "as without VNNI"  # fmt: skip
    assert Pace().size([0.95] * 7, 0, 99, ready) == 8, "an unknown price is tried out"
    assert Pace().size([0.4] * 7, 0, 99, ready) == 1


def test_prices_are_what_passes_take() -> None:
    prices = Prices(Book(LIST))
    assert [prices.of(4, depth) for depth in (0, 500, 1000, 9000)] == [1.4, 1.6, 1.8, 1.8]
    for seconds in (0.010, 0.011, 0.5):
        prices.note(1, seconds, 0)
        prices.note(4, 3 * seconds, 0)
    assert prices.of(4, 0) == pytest.approx(3)
    assert prices.of(8, 0) == 2.0
    assert Prices(prices.book).of(4, 0) == 1.4
    assert Prices().of(2, 0) is None
    assert Prices(Book({2: {0: 1.2}, 4: {0: 1.6}})).of(3, 0) == pytest.approx(1.4)
    of_two = Prices(Book({2: {0: 1.2}, 4: {0: 1.8}}), unit=2)
    assert of_two.of(4, 0) == pytest.approx(1.5), "over a token of each of two"
    assert of_two.of(2, 0) == 1


def test_prices_that_were_learnt_are_kept_and_old_ones_forgotten() -> None:
    book = Book()
    prices = Prices(book)
    for _ in range(LATEST):
        prices.note(1, 0.01, 70)
        prices.note(4, 0.015, 70)
    assert book.prices == {4: {70: 1.5}}
    prices.note(8, 0.09, 70)
    prices.note(8, 0.09, 70)
    assert prices.of(8, 0) == pytest.approx(9)
    for _ in range(600):
        prices.note(1, 0.02, 70)
    far = 1.5 + 4 * 0.5 / 3  # as the list goes on
    assert prices.of(8, 0) == pytest.approx(far), "the machine may have been busy then"
    assert prices.of(4, 0) == 1.5


def test_losses_end_it_and_plain_tokens_earn_it_back() -> None:
    pace = Pace(Prices(Book(LIST)))
    pace.passed(1, 1, 0.01, 0)
    pace.passed(1, 1, 0.01, 0)
    assert pace.size([0.9] * 7, 0, 99, ready) == 8
    pace.passed(8, 1, 9.0, 0)
    assert pace.credit == LEAST_CREDIT
    assert pace.size([0.9] * 7, 0, 99, ready) == 1
    for _ in range(500):
        pace.passed(1, 1, 0.01, 0)
    assert 0 < pace.credit < FIRST_CREDIT
    assert pace.size([0.9] * 7, 0, 99, ready) > 1
    for _ in range(9):
        pace.passed(8, 8, 0.02, 0)
    assert pace.credit > FIRST_CREDIT
    pace.begin()
    assert pace.credit == FIRST_CREDIT, "what one text has won is not for the next one to lose"


def test_recording_waits_until_as_much_was_missed() -> None:
    pace = Pace(Prices(Book(LIST)))
    for _ in range(3):
        pace.passed(1, 1, 0.002, 0)
    pace.passed(1, 1, 0.012, 0, recorded=True)  # five tokens' time for it
    waited = [pace.size([0.95] * 7, 0, 99, lambda _: False) for _ in range(12)]
    assert waited.count(8) == 1
    assert 5 < waited.index(8) < 10
    assert set(waited) == {1, 8}
    assert pace.size([0.95] * 7, 0, 99, lambda size: size == 4) == 4


def test_a_price_that_was_bad_is_tried_anew() -> None:
    pace = Pace(Prices(Book({size: {0: 0.97 * size} for size in SIZES})))
    chances = [0.95, 0.8, 0.8]
    assert pace.size(chances, 0, 99, ready) == 1
    for _ in range(2000):
        pace.passed(1, 1, 0.01, 0)
    size = pace.size(chances, 0, 99, ready)
    assert size > 1
    for _ in range(2):
        pace.passed(size, size, 0.01 * size, 0)
    assert pace.prices.of(size, 0) == pytest.approx(size), "it is as bad as it was"
    assert pace.size(chances, 0, 99, ready) != size


def test_a_pass_loses_no_more_than_there_is() -> None:
    pace = Pace(Prices(Book({2: {0: 1.4}, 4: {0: 1.0 + FIRST_CREDIT + 0.5}})))
    assert pace.size([0.8, 0.9, 0.95], 0, 4, ready) == 3
    assert pace.size([0.95, 0.95, 0.95], 0, 4, ready) == 4, "that is all but certain"


def test_guesses_that_would_have_been_right_give_credit() -> None:
    pace = Pace(Prices(Book(LIST)))
    for _ in range(3):
        pace.passed(1, 1, 0.01, 0)
    pace.passed(8, 1, 9.0, 0)
    assert pace.size([0.8] * 7, 0, 99, ready) == 1
    assert pace.barred == 6
    for _ in range(5):
        pace.imagine(8, 1, 0)
    assert pace.credit < 0
    pace.imagine(8, 8, 0)
    assert pace.credit == FIRST_CREDIT
    assert pace.size([0.8] * 7, 0, 99, ready) > 1
    assert pace.barred == 1


def test_kernels_are_compiled_once_enough_was_missed() -> None:
    pace = Pace(Prices(Book(LIST)))
    missed = [pace.lacks_kernels([0.95] * 7, 0, 99) for _ in range(60)]
    assert 32 < missed.index(True) < 60
    assert not Pace(Prices(Book(LIST))).lacks_kernels([], 0, 99)
