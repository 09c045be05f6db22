"""The one table of outcomes: every outcome has a class, and the sets that code uses add up."""

from __future__ import annotations

from turnbench import outcomes
from turnbench.outcomes import CLASS_OF, FAILED, OUTCOMES, is_failure


def test_every_outcome_has_one_class_and_counts_once() -> None:
    assert list(CLASS_OF) == list(OUTCOMES)
    counted = [*outcomes.ANSWERED, *outcomes.STILL_RUNNING, *FAILED, *outcomes.NOT_MEASURED]
    assert sorted(counted) == sorted(OUTCOMES)


def test_a_client_that_gave_up_failed_in_live_view_and_report_alike() -> None:
    assert [is_failure(outcome) for outcome in ("abandoned", "deadline", "client_ports", "http_5xx")] == [
        True
    ] * 4
    assert [is_failure(outcome) for outcome in ("ok", "unfinished", "cut", "lost", "dropped")] == [False] * 5
