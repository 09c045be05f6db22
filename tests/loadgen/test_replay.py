"""A trace's own times as arrivals: which runs are replays, how fast, and who plays what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from loadgen._replay import as_replay, replayed, with_rate
from loadgen._settings import Job, Settings

HOST = "http://127.0.0.1:8000"
AT_MS = [0, 500, 500, 2000, 7000, 9250]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path: Path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    rows = [{"timestamp": at, "input_length": 20 + n, "output_length": 5} for n, at in enumerate(AT_MS)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return scenarios.load(str(path))


def settings(**given: Any) -> Settings:
    return Settings(**{"host": HOST, "warmup_s": 0.0} | given)


def job(workers: int, worker: int, speed: float) -> Job:
    return Job(
        run="r", worker=worker, workers=workers, settings=settings(replay_speed=speed), scenario="", salt="",
        model="m", usage_in_events=False,
    )  # fmt: skip


def test_a_trace_is_replayed_until_its_end_at_the_rate_of_its_requests(trace: Any) -> None:
    found = as_replay(settings(), trace, {})
    assert (found.replay_speed, found.run_time_s) == (1.0, 10.25)
    assert found.arrival_rate_per_s == pytest.approx(6 / 10.25)


def test_a_multiple_of_its_times_makes_it_shorter(trace: Any) -> None:
    found = as_replay(settings(replay_speed=2.0), trace, {})
    assert found.run_time_s == 9.25 / 2 + 1


def test_the_rate_is_that_of_the_requests_due_in_the_window(trace: Any) -> None:
    found = as_replay(settings(warmup_s=0.5, run_time_s=7.0), trace, {})
    assert (found.run_time_s, found.arrival_rate_per_s) == (7.0, 3 / 6.5), "0.5, 0.5 and 2.0 s, but not 7.0 s"
    assert with_rate(found, trace, frozenset({1, 5})).arrival_rate_per_s == 2 / 6.5


@pytest.mark.parametrize(
    "other",
    [{"levels": [1]}, {"once": True}, {"arrival_rate_per_s": 3.0}, {"find_capacity": True}],
    ids=str,
)
def test_where_something_else_says_who_comes_when_only_the_lengths_are_the_traces(
    trace: Any, other: dict[str, Any]
) -> None:
    asked = settings(**other)
    assert as_replay(asked, trace, {}) == asked


def test_people_that_were_typed_are_no_replay(trace: Any) -> None:
    assert as_replay(settings(users=3), trace, {"turnbench_users_given": True}).replay_speed is None


def test_a_speed_for_what_has_no_times_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--replay-speed: scenario chat has no times of its own"):
        as_replay(settings(replay_speed=2.0), scenarios.load("chat"), {})


def test_a_window_in_which_nothing_is_due_is_refused(trace: Any) -> None:
    with pytest.raises(ValueError, match=r"no request of trace is due between 20 s and 10\.25 s"):
        as_replay(settings(warmup_s=20.0), trace, {})


@given(st.integers(1, 9), st.sampled_from([0.5, 1.0, 3.0]))
def test_any_number_of_workers_begin_every_request_once_and_at_its_time(
    trace: Any, workers: int, speed: float
) -> None:
    parts = [list(replayed(job(workers, w, speed), trace, 10**18)) for w in range(workers)]
    assert all(number % workers == w for w, part in enumerate(parts) for number, _ in part)
    due = [10**18 + round(at_ms / speed * 1e6) for at_ms in AT_MS]
    assert sorted(pair for part in parts for pair in part) == list(enumerate(due))
