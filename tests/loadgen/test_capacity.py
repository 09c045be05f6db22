"""--find-capacity: where it looks next, and when it is sure."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.control._capacity import Judge
from loadgen.options._shapes import Closed, bracket, next_load
from tests.tries import tries
from turnbench.formats import TurnRecord
from turnbench.limits import MOST_POINTS, answer, limits_by_task, meets
from turnbench.outcomes import Outcome
from turnbench.turns import turns_of


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


def singles(met: int, turns: int) -> list[tuple[int, int]]:
    """Conversations of one turn each, the misses spread over them."""
    missed = turns - met
    every = turns // missed if missed else turns + 1
    misses = {every * (number + 1) - 1 for number in range(missed)}
    return [(int(number not in misses), 1) for number in range(turns)]


def test_a_sound_level_and_a_bad_one_are_told_apart() -> None:
    assert answer([], 0.95, MOST_POINTS) == "open"
    assert answer(singles(50, 50), 0.95, MOST_POINTS) == "open"
    assert answer(singles(200, 200), 0.95, MOST_POINTS) == "holds"
    assert answer(singles(60, 100), 0.95, MOST_POINTS) == "fails"
    assert answer(singles(950, 1000), 0.95, MOST_POINTS) == "open"
    assert answer(singles(200, 200), 1.0, MOST_POINTS) == "open"
    assert answer(singles(199, 200), 1.0, MOST_POINTS) == "fails"


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("turns", [1, 5])
def test_a_whole_search_at_exactly_the_share_errs_in_at_most_five_percent(share: float, turns: int) -> None:
    """Neither side may be claimed often, however often one looks, and though conversations are alike."""
    chance, wrong, searches = random.Random(1), 0, 15
    for _ in range(searches):
        for _ in range(MOST_POINTS):
            seen: list[tuple[int, int]] = []
            for number in range(1, 201):
                seen.append((turns * (chance.random() < share), turns))
                if number % 20 == 0 and answer(seen, share, MOST_POINTS) != "open":
                    wrong += 1
                    break
    assert wrong <= 2


def test_turns_that_are_alike_in_a_conversation_say_less_than_those_of_many() -> None:
    assert answer(singles(200, 200), 0.95, MOST_POINTS) == "holds"
    assert answer([(20, 20)] * 10, 0.95, MOST_POINTS) == "open"


def judge(slo: dict[str, dict[str, float]], *records: TurnRecord) -> tuple[int, int]:
    """(turns that meet these limits, turns judged) by the search for the capacity."""
    prepared = SimpleNamespace(slo=slo, shape=Closed(), endpoint=SimpleNamespace(server={}), facts={})
    one = Judge(SimpleNamespace(prepared=prepared))  # type: ignore[arg-type]
    for record in records:
        one.add(record, offset_ns=0)
    met, turns = zip(*one.counts(0, 10**18), strict=True)
    return sum(met), sum(turns)


def turn(number: int, outcome: Outcome = "ok") -> TurnRecord:
    """200 tokens in 100 events, 20 ms from one to the next: 10 ms a token."""
    return TurnRecord(
        run="r", conversation=number, turn=1, task="t", model="m", due_ns=1, sent_ns=1, end_ns=2 * 10**9,
        event_us=[20_000 * event for event in range(1, 101)], output_tokens=200, token_source="usage",
        outcome=outcome,
    )  # fmt: skip


@pytest.mark.parametrize(("limit_ms", "met"), [(9.9, 0), (10.2, 1), (19.0, 1)])
def test_a_turn_is_judged_as_the_report_does_when_events_carry_several_tokens(
    limit_ms: float, met: int
) -> None:
    assert judge({"t": {"tpot_ms": limit_ms}}, turn(0)) == (met, 1)
    met_in_report, _ = meets(turns_of([turn(0)]), limits_by_task({"t": {"tpot_ms": limit_ms}}))
    assert met_in_report.tolist() == [bool(met)]


def test_who_left_or_was_stalled_missed_the_limits_and_who_was_cut_was_not_measured() -> None:
    turns = [
        turn(n, outcome) for n, outcome in enumerate(("ok", "abandoned", "stalled", "unfinished", "cut"))
    ]
    assert judge({"t": {"ttft_ms": 1000.0}}, *turns) == (1, 4)


def test_the_last_attempt_at_a_turn_counts() -> None:
    first = msgspec.structs.replace(turn(0), outcome="http_5xx", event_us=[])
    assert judge({"t": {"ttft_ms": 1000.0}}, first, msgspec.structs.replace(turn(0), attempt=2)) == (1, 1)
