"""The one table of outcomes: every outcome has a class, and the sets that code uses add up."""

from __future__ import annotations

from turnbench import outcomes
from turnbench.outcomes import CLASS_OF, OUTCOMES


def test_every_outcome_has_one_class_and_counts_once() -> None:
    assert list(CLASS_OF) == list(OUTCOMES)
    counted = [*outcomes.ANSWERED, *outcomes.CENSORED, *outcomes.FAILED, *outcomes.NOT_MEASURED]
    assert sorted(counted) == sorted(OUTCOMES)


def test_a_turn_that_was_given_up_is_censored_and_one_that_broke_off_has_failed() -> None:
    assert {"deadline", "stalled", "abandoned", "unfinished"} == set(outcomes.CENSORED)
    assert {"truncated", "disconnected", "client_ports", "http_5xx"} <= set(outcomes.FAILED)
    assert set(outcomes.BROKEN_OFF) <= set(outcomes.FAILED)


def test_a_turn_that_was_watched_to_its_end_without_an_answer_ends_its_conversation() -> None:
    assert {*outcomes.FAILED, "deadline", "stalled", "abandoned"} == set(outcomes.UNANSWERED)


def test_every_outcome_says_what_it_means() -> None:
    assert tuple(outcomes.MEANINGS) == OUTCOMES
