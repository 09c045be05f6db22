"""--find-capacity: where it looks next, and when it is sure."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.control._capacity import answer
from loadgen.options._shapes import MOST_POINTS, bracket, next_load
from tests.tries import tries


def search(capacity: float, first: float, whole: bool) -> dict[float, bool]:
    tried: dict[float, bool] = {}
    while (load := next_load(tried, first, whole)) is not None:
        tried[load] = load <= capacity
    return tried


@given(capacity=st.integers(1, 4000))
def test_the_capacity_in_people_is_found_within_ten_percent_in_twelve_points(capacity: int) -> None:
    tried = search(capacity, 1.0, True)
    found, fails = bracket(tried)
    assert len(tried) <= MOST_POINTS
    assert found is not None
    assert fails is not None
    assert found <= capacity < fails
    assert fails - found <= 1 or found >= 0.9 * capacity


@tries(200)
@given(capacity=st.floats(0.3, 400), first=st.floats(1, 50))
def test_the_capacity_in_arrivals_is_found_within_ten_percent_in_twelve_points(
    capacity: float, first: float
) -> None:
    tried = search(capacity, first, False)
    found, _ = bracket(tried)
    assert len(tried) <= MOST_POINTS
    assert found is not None
    assert 0.9 * capacity <= found <= capacity


def test_a_server_that_holds_nothing_ends_the_search() -> None:
    assert search(0, 1.0, True) == {1.0: False}


@given(first=st.floats(0.01, 1000), least=st.floats(0.01, 10))
def test_a_search_does_not_go_down_to_loads_at_which_nothing_happens(first: float, least: float) -> None:
    tried: dict[float, bool] = {}
    while (load := next_load(tried, first, False, least)) is not None:
        tried[load] = False
    assert all(load >= least for load in list(tried)[1:])
    assert len(tried) <= 1 + max(math.ceil(math.log(first / least, 4)), 0)


def test_a_sound_level_and_a_bad_one_are_told_apart() -> None:
    assert answer(0, 0, 0.95) == "open"
    assert answer(50, 50, 0.95) == "open"
    assert answer(120, 120, 0.95) == "holds"
    assert answer(60, 100, 0.95) == "fails"
    assert answer(950, 1000, 0.95) == "open"
    assert answer(200, 200, 1.0) == "open"
    assert answer(199, 200, 1.0) == "fails"


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95])
def test_looking_after_every_turn_is_wrong_in_at_most_five_percent(share: float) -> None:
    """At exactly the asked share, neither side may be claimed often, however often one looks."""
    chance, wrong, trials = random.Random(1), 0, 150
    for _ in range(trials):
        met = 0
        for turns in range(1, 301):
            met += chance.random() < share
            if turns % 10 == 0 and answer(met, turns, share) == "holds":
                wrong += 1
                break
    assert wrong / trials <= 0.08
