"""Each metric of one turn, against streams whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.conftest import MS, START_NS, S, turn
from turnbench.formats import TurnRecord
from turnbench.metrics import METRICS, fluidity
from turnbench.turns import Events, joined, turns_of


def row(record: TurnRecord, stop_counted: bool = False) -> dict[str, float]:
    """Every metric of one record, its tokens, and those of each event if they are spread evenly."""
    turns = turns_of([record], stop_counted=stop_counted)
    found = {key: metric.compute(turns) for key, metric in METRICS.items() if metric.per == "turn"}
    found |= {"tokens": turns.output_tokens, "even_tokens": turns.even_tokens}
    return {key: values.item() for key, values in found.items()}


def test_times_of_an_even_stream_are_recovered() -> None:
    found = row(turn(ttft_ms=100, gap_ms=20, events=11, late_ms=3))
    assert found["ttft_ms"] == 100
    assert found["ttfat_ms"] == 100
    assert found["response_delay_ms"] == 103
    assert found["ttg_ms"] == 300
    assert found["tpot_ms"] == 20
    assert found["decode_tokens_per_s"] == 50
    assert found["request_tps"] == pytest.approx(11 / 0.3)


def test_reasoning_counts_for_the_first_token_but_not_for_the_first_answer_token() -> None:
    found = row(turn(ttft_ms=100, gap_ms=20, events=10, answer_event=4))
    assert (found["ttft_ms"], found["ttfat_ms"]) == (100, 180)


def test_a_missing_ttft_is_missing_and_not_zero() -> None:
    found = row(turn(events=0, output_tokens=None, outcome="empty"))
    for name in ("ttft_ms", "ttfat_ms", "response_delay_ms", "ttg_ms", "tpot_ms", "request_tps", "tokens"):
        assert math.isnan(found[name]), name


def test_a_one_token_answer_has_a_time_but_no_tpot() -> None:
    found = row(turn(ttft_ms=100, events=1))
    assert (found["ttft_ms"], found["ttg_ms"], found["tokens"]) == (100, 100, 1)
    assert math.isnan(found["tpot_ms"])


def test_the_stop_token_makes_tpot_neither_zero_nor_shorter() -> None:
    # One content event and the stop token in usage: 2 tokens, but nothing to divide by.
    assert math.isnan(row(turn(events=1, output_tokens=2))["tpot_ms"])
    found = row(turn(gap_ms=20, events=11, output_tokens=12), stop_counted=True)
    assert (found["tpot_ms"], found["tokens"]) == (20, 12)
    cut = row(turn(gap_ms=20, events=11, output_tokens=12, finish_reason="length"), stop_counted=True)
    assert cut["tpot_ms"] == pytest.approx(200 / (12 - 12 / 11))


def test_reasoning_that_was_counted_and_never_streamed_is_in_no_event() -> None:
    hidden = turn(ttft_ms=2000, gap_ms=20, events=100, output_tokens=1001, reasoning_tokens=900)
    assert row(hidden, stop_counted=True)["tpot_ms"] == 20
    assert row(hidden)["tpot_ms"] == pytest.approx(99 * 20 / (101 * 0.99))
    assert row(hidden)["tokens"] == 1001
    assert math.isnan(row(hidden)["ttg256_ms"])  # only 101 tokens were ever seen
    streamed = turn(gap_ms=2, events=1000, output_tokens=1000, reasoning_tokens=900, answer_event=900)
    assert row(streamed)["tpot_ms"] == 2


def test_a_reasoning_count_above_the_total_leaves_one_token_an_event() -> None:
    found = row(turn(gap_ms=20, events=10, output_tokens=10, reasoning_tokens=50))
    assert found["tpot_ms"] == 20
    assert math.isnan(found["even_tokens"])


def test_a_total_spread_evenly_gives_whole_tokens_one_after_the_other() -> None:
    turns = turns_of([turn(events=4, output_tokens=10), turn(events=4, output_tokens=3)])
    assert turns.events.tokens.tolist() == [2, 3, 2, 3, 0, 1, 1, 1]
    assert turns.even_tokens.tolist() == [2.5, 0.75]
    assert row(turn(ttft_ms=100, gap_ms=10, events=100, output_tokens=512))["ttg256_ms"] == 100 + 49 * 10


def test_several_tokens_in_one_event_are_not_counted_as_one() -> None:
    tokens = [1, 4, 4, 4]
    record = turn(ttft_ms=100, gap_ms=40, events=4, event_tokens=tokens, output_tokens=13)
    found = row(record)
    assert found["tpot_ms"] == pytest.approx(120 / 12)
    assert found["tokens"] == 13


def test_where_only_the_total_is_known_tokens_are_spread_evenly_and_it_shows() -> None:
    found = row(turn(ttft_ms=100, gap_ms=40, events=5, output_tokens=20))
    assert found["tpot_ms"] == pytest.approx(160 / 16)
    assert found["even_tokens"] == 4


def test_the_servers_count_is_the_truth_whatever_the_events_say() -> None:
    found = row(turn(ttft_ms=0, gap_ms=10, events=101, output_tokens=76))
    assert found["request_tps"] == pytest.approx(76)


def test_ttg256_is_the_arrival_of_the_256th_token_and_never_extrapolated() -> None:
    assert row(turn(ttft_ms=100, gap_ms=10, events=300))["ttg256_ms"] == 100 + 255 * 10
    short = row(turn(events=255))
    assert math.isnan(short["ttg256_ms"])
    pairs = turn(ttft_ms=100, gap_ms=10, events=150, event_tokens=[2] * 150, output_tokens=300)
    assert row(pairs)["ttg256_ms"] == 100 + 127 * 10


def test_connection_set_up_is_not_inside_ttft() -> None:
    record = turn(ttft_ms=100, connect_us=80_000, late_ms=80)
    found = row(record)
    assert (found["ttft_ms"], found["response_delay_ms"]) == (100, 180)


def test_a_frozen_server_shows_in_the_response_delay_of_a_turn_sent_late() -> None:
    record = turn(ttft_ms=50, due_ns=START_NS + 10 * S - 900 * MS)
    assert row(record)["response_delay_ms"] == 950


def test_a_reader_waits_only_for_words_that_come_late() -> None:
    ms_per_word = 60_000 / 238
    slow = row(turn(ttft_ms=0, gap_ms=1000, events=4))
    assert slow["stall_ms"] == pytest.approx(3 * (1000 - ms_per_word), rel=1e-6)
    fast = row(turn(ttft_ms=500, gap_ms=20, events=40))
    assert fast["stall_ms"] == 0


def test_reasoning_gives_a_reader_no_slack() -> None:
    record = turn(ttft_ms=0, gap_ms=1000, events=4, answer_event=2)
    assert row(record)["stall_ms"] == pytest.approx(1000 - 60_000 / 238, rel=1e-6)


def _events(at_ms: list[float], tokens: list[int]) -> Events:
    at_us = np.array([round(at * 1000) for at in at_ms], dtype=np.int64)
    count = np.array(tokens, dtype=np.int32)
    return Events(np.array([0, len(at_us)]), at_us, count, np.ones(len(at_us), dtype=np.int32))


def _index(at_ms: list[float], tokens: list[int]) -> tuple[float, float]:
    met, total = fluidity(_events(at_ms, tokens), np.array([200.0]), np.array([100.0]))
    return float(met[0]), float(total[0])


def test_an_early_token_banks_slack_for_a_later_one() -> None:
    assert _index([50, 60, 390], [1, 1, 1]) == (3, 3)


def test_a_late_token_misses_every_deadline_it_let_pass_and_starts_anew() -> None:
    # Due at 200, 300, 400, ...: the second token at 550 lets 300, 400 and 500 pass; the next is due at 650.
    assert _index([100, 550, 650], [1, 1, 1]) == (2, 5)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 3)), min_size=1, max_size=40))
def test_fluidity_agrees_with_a_token_by_token_count(steps: list[tuple[int, int]]) -> None:
    at_ms = np.cumsum([gap for gap, _ in steps]).tolist()
    tokens = [count for _, count in steps]
    due, met, missed = 200.0, 0, 0
    for at, count in zip(at_ms, tokens, strict=True):
        for _ in range(count):
            if at <= due:
                met, due = met + 1, due + 100
            else:
                missed += math.floor((at - due) / 100) + 1
                due = at + 100
    assert _index(at_ms, tokens) == (met, met + missed)


_PARTS = st.lists(
    st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(-(2**31), 2**31), st.integers(0, 200))),
    min_size=1,
    max_size=4,
)


@given(_PARTS)
def test_events_kept_in_few_bytes_and_joined_are_the_same_numbers(parts: list[list[tuple[int, ...]]]) -> None:
    made = [Events(np.array([0, len(p)]), *np.array(p, dtype=np.int64).reshape(-1, 3).T) for p in parts]
    found = joined([part.narrow() for part in made])
    flat = [row for part in parts for row in part]
    assert list(zip(found.at_us, found.tokens, found.words, strict=True)) == flat
    assert found.offsets.tolist() == [0, *np.cumsum([len(part) for part in parts])]


def test_usual_events_take_six_bytes_each() -> None:
    events = _events([100.0, 120.0], [1, 4]).narrow()
    assert [values.itemsize for values in (events.at_us, events.tokens, events.words)] == [4, 1, 1]
