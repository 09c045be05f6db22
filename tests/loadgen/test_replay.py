"""A trace's own times as arrivals: which runs are replays, how fast, and who plays what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from loadgen._messages import Job
from loadgen.engine._arrivals import trace_arrivals
from loadgen.options._headers import recorded
from loadgen.options._settings import Settings
from loadgen.options._shapes import Replay, shape_of
from loadgen.options._values import ArrivalRates

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


def job(workers: int, worker: int) -> Job:
    return Job(
        run="r", worker=worker, workers=workers, settings=settings(), scenario="", salt="",
        model="m", usage_in_events=False,
    )  # fmt: skip


def shape(asked: Settings, scenario: Any, people_given: bool = False, without: Any = ()) -> Any:
    return shape_of(asked).for_scenario(scenario, asked, people_given, without)


def test_a_trace_is_replayed_until_its_end_at_the_rate_of_its_requests(trace: Any) -> None:
    found = shape(settings(), trace)
    assert isinstance(found, Replay)
    assert (found.speed, found.run_time_s) == (1.0, 10.25)
    assert found.rate_per_s == pytest.approx(6 / 10.25)


def test_a_replay_is_recorded_as_the_open_loop_that_it_is(trace: Any) -> None:
    asked = settings(replay_speed=2.0)
    shown = recorded(asked, shape(asked, trace))
    assert (shown["users"], shown["replay_speed"], shown["run_time_s"]) == (None, 2.0, 9.25 / 2 + 1)
    assert shown["arrival_rate_per_s"] == pytest.approx(6 / shown["run_time_s"])


def test_a_multiple_of_its_times_makes_it_shorter(trace: Any) -> None:
    assert shape(settings(replay_speed=2.0), trace).run_time_s == 9.25 / 2 + 1


def test_the_rate_is_that_of_the_requests_due_in_the_window(trace: Any) -> None:
    asked = settings(warmup_s=0.5, run_time_s=7.0)
    found = shape(asked, trace)
    assert (found.run_time_s, found.rate_per_s) == (7.0, 3 / 6.5), "0.5, 0.5 and 2.0 s, but not 7.0 s"
    assert found.for_scenario(trace, asked, False, {1, 5}).rate_per_s == 2 / 6.5


@pytest.mark.parametrize(
    "other",
    [{"levels": [1]}, {"once": True}, {"arrival_rate": ArrivalRates(3.0)}, {"find_capacity": True}],
    ids=str,
)
def test_where_something_else_says_who_comes_when_only_the_lengths_are_the_traces(
    trace: Any, other: dict[str, Any]
) -> None:
    asked = settings(**other)
    assert shape(asked, trace) == shape_of(asked)
    assert not isinstance(shape_of(asked), Replay)


def test_people_that_were_typed_are_no_replay(trace: Any) -> None:
    assert shape(settings(users=3), trace, people_given=True) == shape_of(settings(users=3))


def test_a_speed_for_what_has_no_times_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--replay-speed: scenario chat has no times of its own"):
        shape(settings(replay_speed=2.0), scenarios.load("chat"))


def test_a_window_in_which_nothing_is_due_is_refused(trace: Any) -> None:
    with pytest.raises(ValueError, match=r"no request of trace is due between 20 s and 10\.25 s"):
        shape(settings(warmup_s=20.0), trace)


@given(st.integers(1, 9), st.sampled_from([0.5, 1.0, 3.0]))
def test_any_number_of_workers_begin_every_request_once_and_at_its_time(
    trace: Any, workers: int, speed: float
) -> None:
    parts = [list(trace_arrivals(job(workers, w), trace, 10**18, speed)) for w in range(workers)]
    assert all(number % workers == w for w, part in enumerate(parts) for number, _ in part)
    due = [10**18 + round(at_ms / speed * 1e6) for at_ms in AT_MS]
    assert sorted(pair for part in parts for pair in part) == list(enumerate(due))
