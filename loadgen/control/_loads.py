"""What each level of a run asks of the server: so many people, or so many arrivals."""

from __future__ import annotations

from dataclasses import dataclass

from loadgen._settings import Settings


@dataclass(frozen=True)
class Load:
    """One level's load: people in closed loop, conversations per second in open loop."""

    users: int | None = None
    rate_per_s: float | None = None
    ramp_to_per_s: float | None = None
    """The rate rises (or falls) evenly to this one."""

    def __str__(self) -> str:
        if self.rate_per_s is None:
            return "1 person" if self.users == 1 else f"{self.users} people"
        to = "" if self.ramp_to_per_s is None else f" to {self.ramp_to_per_s:g}"
        return f"{self.rate_per_s:g}{to} arrivals/s"


def loads_of(settings: Settings) -> list[Load]:
    """The load of each level, in order."""
    if settings.arrival_rate_per_s is not None:
        steps = settings.arrival_steps_per_s or [settings.arrival_rate_per_s]
        return [Load(rate_per_s=rate, ramp_to_per_s=settings.arrival_ramp_to_per_s) for rate in steps]
    return [Load(users) for users in settings.levels or [settings.users]]


def first_users(settings: Settings) -> int | None:
    """How many users Locust starts with where the run says so itself; None: as -u asks."""
    if settings.arrival_rate_per_s is not None:
        return 1
    if settings.find_capacity:
        return settings.users
    return settings.levels[0] if settings.levels else None


def spawn_rate_per_s(settings: Settings, users: int) -> float:
    """How many people come per second: -r; else all of a level within a second, but at most 100."""
    return settings.spawn_rate or (1 if first_users(settings) is None else min(users, 100))


def window_s(settings: Settings) -> float | None:
    """How long a level measures; None: until somebody ends it."""
    if settings.levels or settings.arrival_steps_per_s or settings.find_capacity:
        return settings.hold_s
    return None if settings.run_time_s is None else max(settings.run_time_s - settings.warmup_s, 0.0)


def rest_s(settings: Settings, loads: list[Load]) -> float:
    """Least time that these levels take: until all are there, the warm-up, the window."""
    coming_s = sum((load.users or 0) / spawn_rate_per_s(settings, load.users or 1) for load in loads)
    return coming_s + len(loads) * (settings.warmup_s + (window_s(settings) or 0.0))
