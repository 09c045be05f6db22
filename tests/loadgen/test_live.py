"""The live numbers of a level: which turns they count, and that they are those of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.control._live import LiveNumbers, LiveTask
from turnbench.formats import HealthLine, LevelEntry, TurnRecord
from turnbench.formats.turn import encode
from turnbench.outcomes import CENSORED, NOT_MEASURED

S = 1_000_000_000
LEVEL = LevelEntry(index=0, users=2, start_ns=100 * S, window_start_ns=110 * S, window_end_ns=170 * S)


def turn(k: int, sent_s: float, ttft_ms: float, ttg_ms: float, **more: Any) -> TurnRecord:
    sent_ns = int(sent_s * S)
    fields: dict[str, Any] = {
        "run": "r", "conversation": k, "turn": 1, "task": "chat", "model": "m", "due_ns": sent_ns,
        "sent_ns": sent_ns, "end_ns": sent_ns + int(ttg_ms * 1e6), "output_tokens": 10,
        "event_us": [int(ttft_ms * 1000), int(ttg_ms * 1000)],
    }  # fmt: skip
    return TurnRecord(**fields | more)


def row(records: Sequence[TurnRecord], level: LevelEntry = LEVEL, offset_ns: int = 0) -> LiveTask:
    """The only row of these turns at 160 s."""
    live = LiveNumbers()
    for record in records:
        live.take_turn(encode(record), offset_ns)
    live.digest(level)
    (only,) = live.tasks(160 * S, level.start_ns or 0)
    return only


def test_only_turns_sent_in_the_window_are_in_a_row() -> None:
    records = [turn(k, sent_s, 100 + k, 1000) for k, sent_s in enumerate((109.9, 110.0, 169.9, 170.0))]
    assert row(records).turns == 2
    assert row(records).ttft_p50_ms == 101


def test_of_many_turns_the_newest_give_the_times_and_all_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadgen.control._live._NEWEST_TURNS", 3)
    found = row([turn(k, 111 + k, ttft_ms, 1000) for k, ttft_ms in enumerate((900, 900, 100, 200, 300))])
    assert (found.turns, found.ttft_p50_ms) == (5, 200)


def test_before_the_window_opens_the_warm_up_is_shown_and_goes_when_it_does() -> None:
    live = LiveNumbers()
    live.take_turn(encode(turn(1, 101, 100, 1000)), 0)
    live.digest(LevelEntry(index=0, users=2, start_ns=100 * S))
    assert [each.turns for each in live.tasks(103 * S, 100 * S)] == [1]
    live.digest(LEVEL)
    assert live.tasks(111 * S, 100 * S) == []


def test_the_clock_of_a_worker_that_is_ahead_is_taken_back() -> None:
    assert row([turn(1, 172, 100, 1000)], offset_ns=5 * S).turns == 1


def test_a_turn_counts_once_by_its_last_attempt() -> None:
    failed = turn(1, 120, 0, 0, outcome="http_5xx", event_us=[], error="busy")
    assert row([failed]).unanswered == 1
    answered = row([failed, turn(1, 121, 100, 1000, attempt=2)])
    assert (answered.turns, answered.unanswered) == (1, 0)


def test_turns_that_fail_for_hours_are_counted_and_not_kept() -> None:
    live = LiveNumbers()
    for begin in range(0, 6_000, 1_000):
        for k in range(begin, begin + 1_000):
            outcome = ("stalled", "http_5xx", "empty")[k % 3]
            live.take_turn(encode(turn(k, 120, 0, 0, outcome=outcome, event_us=[], error=f"no {k}")), 0)
        live.digest(LEVEL)
    live.take_turn(encode(turn(5_998, 121, 100, 1000, attempt=2)), 0)
    live.digest(LEVEL)
    (row,) = live.tasks(160 * S, 100 * S)
    assert (row.turns, row.unanswered) == (6_000, 5_999)
    assert live.outcomes() == {"ok": 1, "stalled": 2_000, "http_5xx": 1_999, "empty": 2_000}
    assert live.last_error() == "no 5999"
    assert len(live._unanswered) <= 2_000


def test_who_never_got_the_whole_answer_waited_longest() -> None:
    cut_off = [turn(k, 120, 50, 0, outcome="stalled", event_us=[50_000]) for k in range(10)]
    found = row([*cut_off, *(turn(k, 120, 100, 1000) for k in range(10, 20))])
    assert found.ttft_p50_ms == 50
    assert found.ttg_p50_ms == 1000
    assert found.ttg_p95_ms is None
    assert row(cut_off).tps is None


def test_tokens_per_second_of_all_streams_are_those_that_ended_in_the_last_30_s() -> None:
    records = [turn(k, 111 + k, 100, 1000) for k in range(49)]  # 10 tokens each second
    assert row(records).tokens_per_s == pytest.approx(10, rel=0.05)


def test_a_failed_turn_is_counted_by_its_outcome_and_its_words_are_kept() -> None:
    live = LiveNumbers()
    records = [turn(k, 120, 100, 1000, outcome=name, error=name) for k, name in enumerate(("ok", "http_429"))]
    for record in [*records, turn(9, 120, 100, 1000, outcome="cut", error="the level ended")]:
        live.take_turn(encode(record), 0)
    live.digest(LEVEL)
    assert live.outcomes() == {"ok": 1, "http_429": 1}
    assert live.last_error() == "http_429"


def test_the_words_of_a_turn_that_was_mended_are_no_longer_shown() -> None:
    live = LiveNumbers()
    for k, error in ((1, "older"), (2, "newest")):
        live.take_turn(encode(turn(k, 120, 100, 1000, outcome="http_5xx", event_us=[], error=error)), 0)
    live.take_turn(encode(turn(2, 121, 100, 1000, attempt=2)), 0)
    live.digest(LEVEL)
    assert live.last_error() == "older"
    for k in range(3, 63):
        failed = turn(k, 122, 100, 1000, outcome="http_5xx", event_us=[], error="passing")
        for record in (failed, turn(k, 123, 100, 1000, attempt=2)):
            live.take_turn(encode(record), 0)
    live.digest(LEVEL)
    assert live.last_error() == "older", "none of the others' places is taken"
    live.take_turn(encode(turn(1, 124, 0, 0, outcome="abandoned", event_us=[], attempt=2)), 0)
    live.digest(LEVEL)
    assert live.last_error() is None, "its last attempt says nothing"


def test_a_worker_that_is_silent_has_no_streams_and_the_worst_lag_of_ten_seconds_is_shown() -> None:
    live = LiveNumbers()
    for second, lag_ms in ((100, 3.0), (104, 40.0), (108, 1.0), (109, 2.0)):
        for worker in (0, 1):
            line = HealthLine(t_ns=0, worker=worker, in_flight=4 + worker, loop_lag_ms=lag_ms, cpu_share=0.1)
            if worker == 0 or second < 105:
                live.take_health(msgspec.json.encode(line), second * S)
    assert live.in_flight(109 * S) == 4
    assert live.client(109 * S).lag_ms == 40.0
    assert live.client(109 * S).workers == 1


@given(st.lists(st.tuples(st.integers(1, 10**6), st.sampled_from(("ok", "stalled", "http_5xx", "cut")))))
def test_percentiles_are_nearest_ranks_of_answered_and_censored_turns(
    drawn: list[tuple[int, str]],
) -> None:
    records = [
        turn(k, 120, 1, ms, outcome=name, event_us=[1000, ms * 1000]) for k, (ms, name) in enumerate(drawn)
    ]
    counted = [(ms, name) for ms, name in drawn if name not in NOT_MEASURED]
    if not counted:
        return
    waits = sorted(np.inf if name in CENSORED else ms for ms, name in counted if name != "http_5xx")
    found = row(records)
    assert found.turns == len(counted)
    for share, shown in ((0.5, found.ttg_p50_ms), (0.95, found.ttg_p95_ms)):
        rank = waits[max(int(np.ceil(share * len(waits) - 1e-9)), 1) - 1] if waits else np.inf
        assert shown == (None if np.isinf(rank) else rank)
