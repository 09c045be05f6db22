"""Timed replay: the conversations of a trace begin at its own times, or at a multiple of them.

To the rest of the house a replay is an open loop whose arrivals are known beforehand: its rate is that of the
requests due in the window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import structs

from loadgen._settings import Job, Settings
from scenarios import Scenario, arrivals

_AFTER_LAST_S = 1.0
"""A replay's window ends so long after the last request was due."""


def as_replay(settings: Settings, scenario: Scenario, options: Mapping[str, Any]) -> Settings:
    """The settings of a replay, if this is one: a trace, and nothing else says who comes when.

    Raises ValueError where --replay-speed was given for what has no times of its own.
    """
    others = options.get("turnbench_users_given") or settings.levels or settings.once
    if scenario.timed and not (others or settings.arrival_rate_per_s or settings.find_capacity):
        return with_rate(structs.replace(settings, replay_speed=settings.replay_speed or 1.0), scenario)
    if settings.replay_speed is not None:
        raise ValueError(
            f"--replay-speed: scenario {scenario.name} has no times of its own; give a trace of requests"
        )
    return settings


def with_rate(settings: Settings, scenario: Scenario, left_out: frozenset[int] = frozenset()) -> Settings:
    """The settings with the run's length and the rate at which requests are due in its window.

    Raises ValueError where none is.
    """
    if settings.replay_speed is None:
        return settings
    times = [
        at_s for row, at_s in enumerate(_times_s(scenario, settings.replay_speed)) if row not in left_out
    ]
    end_s = settings.run_time_s or max(times, default=0.0) + _AFTER_LAST_S
    due = sum(settings.warmup_s <= at_s < end_s for at_s in times)
    if not due:
        raise ValueError(
            f"no request of {scenario.name} is due between {settings.warmup_s:g} s and {end_s:g} s of its "
            "replay; lower --warmup or raise -t"
        )
    rate_per_s = due / (end_s - settings.warmup_s)
    return structs.replace(settings, run_time_s=end_s, arrival_rate_per_s=rate_per_s)


def replayed(job: Job, scenario: Scenario, start_ns: int) -> Iterator[tuple[int, int]]:
    """(number, due_ns) of each conversation that this worker has to begin."""
    for number, at_s in enumerate(_times_s(scenario, job.settings.replay_speed or 1.0)):
        if number % job.workers == job.worker:
            yield number, start_ns + round(at_s * 1e9)


def _times_s(scenario: Scenario, speed: float) -> Iterator[float]:
    return (at_s / speed for at_s in arrivals(scenario))
