"""What a shape of load is: which load each level has, with what a run starts, how long a level measures, what
ends it, and what the engine has to know. `_shapes` has one class for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import msgspec

from loadgen.options._settings import Settings
from scenarios import Scenario

_FASTEST_SPAWN_PER_S = 100.0
EXACT_ARRIVALS = 100
"""Arrivals from which the plan fixes how many there are in a window."""


@dataclass(frozen=True)
class Load:
    """One level's load: people in closed loop, conversations per second in open loop."""

    users: int | None = None
    rate_per_s: float | None = None
    ramp_to_per_s: float | None = None
    """The rate rises (or falls) evenly to this one."""
    replay_speed: float | None = None
    """Conversations begin at a trace's own times, at this multiple; `rate_per_s` follows from that."""

    @property
    def value(self) -> float:
        """The number that is asked for."""
        return float(self.users or 0) if self.rate_per_s is None else self.rate_per_s

    def __str__(self) -> str:
        if self.rate_per_s is None:
            return "1 person" if self.users == 1 else f"{self.users} people"
        to = "" if self.ramp_to_per_s is None else f" to {self.ramp_to_per_s:g}"
        return f"{self.rate_per_s:g}{to} arrivals/s"


class EngineLoad(msgspec.Struct, frozen=True):
    """What an engine has to know of the shape of a run's load."""

    open_loop: bool = False
    """Conversations begin when they arrive; else each person has one after the other."""
    once: bool = False
    """Every conversation of a finite scenario is played exactly once."""
    most_people: int | None = 1
    """The most people at once, over all workers; None: nobody knows."""
    scenario_lengths: bool = False
    """--exact-tokens asks for the scenario's own lengths of answers, not one length for all."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What all shapes have in common. A level without `hold_s` lasts as long as the run, `run_time_s`."""

    ends: ClassVar[Literal["time", "exhausted", "decided"]] = "time"
    """What ends a level: its time; that nothing is left to play; that it's clear whether the limits hold."""
    open_loop: ClassVar[bool] = False
    default_think_time: ClassVar[Literal["none", "scenario"]] = "scenario"
    """none: people stand for streams in flight."""
    takes_hold: ClassVar[bool] = False
    """Whether --hold says something here."""

    warmup_s: float = 5.0
    spawn_rate: float | None = None
    """People that come per second, if somebody said so."""
    hold_s: float | None = None
    run_time_s: float | None = None

    # --- from the options ---

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        """Whether the options ask for this shape."""
        raise NotImplementedError

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The shape that the options ask for."""
        common = {
            "warmup_s": settings.warmup_s,
            "spawn_rate": settings.spawn_rate,
            "hold_s": settings.hold_s if cls.takes_hold else None,
            "run_time_s": None if cls.takes_hold else settings.run_time_s,
        }
        return cls(**(common | cls.own(settings)))

    @classmethod
    def own(cls, settings: Settings) -> dict[str, Any]:
        """The fields that only this shape has, from the options."""
        return {}

    @classmethod
    def problems(cls, settings: Settings, given: frozenset[str]) -> list[str]:
        """What of the flags given does not fit this shape, beyond options that exclude each other."""
        return []

    def for_scenario(
        self, scenario: Scenario, settings: Settings, people_given: bool, without: Iterable[int] = ()
    ) -> Shape:
        """The shape for that scenario: a trace brings its own times, unless somebody said how people come.

        `without`: rows that are not played. Raises ValueError where it can't be played so.
        """
        return self

    def impossible(self, scenario: Scenario, slo: Mapping[str, float]) -> list[str]:
        """Why this load can't be made with that scenario and those limits."""
        if self.run_time_s is None:
            return []
        users = self.loads()[0].users
        coming_s = 0.0 if users is None else users / self.spawn_rate_per_s(users)
        if coming_s + self.warmup_s < self.run_time_s:
            return []
        people = "" if users is None else (
            f"{users} people at {self.spawn_rate_per_s(users):g}/s take {coming_s:g} s and "
        )  # fmt: skip
        return [
            f"-t {self.run_time_s:g}s leaves nothing to measure: {people}the warm-up {self.warmup_s:g} s; "
            f"raise {'-t' if users is None else '-r or -t'}, or lower --warmup"
        ]

    def too_few_people(self, workers: int) -> list[str]:
        """Why so many workers can't share this load."""
        return []

    # --- levels ---

    def loads(self) -> list[Load]:
        """The load of each level, as far as they are known beforehand."""
        raise NotImplementedError

    def next_load(self, played: Sequence[tuple[Load, bool | None]]) -> Load | None:
        """The load of the next level, after these and whether limits held there; None: the run is over."""
        loads = self.loads()
        return loads[len(played)] if len(played) < len(loads) else None

    @property
    def how_many(self) -> str:
        """How many levels there are, for a person."""
        return f"of {len(self.loads())}"

    def rest_s(self, played: int) -> float | None:
        """Least time that the levels after so many take: people's coming, warm-up, window; None: unknown."""
        later = self.loads()[played:]
        coming_s = sum((load.users or 0) / self.spawn_rate_per_s(load.users or 1) for load in later)
        return coming_s + len(later) * (self.warmup_s + (self.window_s or 0.0))

    @property
    def start_users(self) -> int:
        """Users that Locust starts with; in open loop one a worker asks its engine for the arrivals."""
        return self.loads()[0].users or 1

    def spawn_rate_per_s(self, users: int) -> float:
        """People that come per second: -r; else all of a level within a second, but at most 100."""
        return self.spawn_rate or min(float(users), _FASTEST_SPAWN_PER_S)

    @property
    def window_s(self) -> float | None:
        """How long a level is meant to measure; None: until somebody ends it."""
        if self.hold_s is not None:
            return self.hold_s
        return None if self.run_time_s is None else max(self.run_time_s - self.warmup_s, 0.0)

    def window_end_ns(self, level_start_ns: int, window_start_ns: int) -> int | None:
        """When a window ends at the latest."""
        if self.hold_s is not None:
            return window_start_ns + int(self.hold_s * 1e9)
        if self.run_time_s is None:
            return None
        # The run time began with the first person, and the warm-up with the last.
        return max(int(level_start_ns + self.run_time_s * 1e9), window_start_ns)

    def mean_rate_per_s(self, load: Load) -> float | None:
        """Arrivals per second that a level's window is offered; None in closed loop."""
        return load.rate_per_s

    # --- for others ---

    def engine_load(self) -> EngineLoad:
        """What the engine has to know."""
        most = None if self.open_loop else max((load.users or 1 for load in self.loads()), default=1)
        return EngineLoad(open_loop=self.open_loop, most_people=most)

    def recorded(self) -> dict[str, Any]:
        """Settings of run.json that follow from the shape and were not typed as such."""
        return {"users": None} if self.open_loop else {}


@dataclass(frozen=True)
class ChangingRate:
    """A rate of arrivals that changes evenly from one to another within `over_s`; then the last one stays."""

    from_per_s: float
    to_per_s: float
    over_s: float

    def expected(self, at_s: float) -> float:
        """Arrivals expected until then: the integral of the rate."""
        inside_s = min(at_s, self.over_s)
        risen = (self.to_per_s - self.from_per_s) * inside_s / self.over_s
        return inside_s * (self.from_per_s + risen / 2) + max(at_s - self.over_s, 0.0) * self.to_per_s

    def moment_s(self, expected: float) -> float:
        """When so many are expected: the inverse of `expected`."""
        on_ramp = self.expected(self.over_s)
        if expected >= on_ramp:
            return self.over_s + (expected - on_ramp) / self.to_per_s
        growth = (self.to_per_s - self.from_per_s) / self.over_s
        # The root of growth/2 t^2 + from t = expected, in the form that does not cancel.
        return 2 * expected / (self.from_per_s + math.sqrt(self.from_per_s**2 + 2 * growth * expected))
