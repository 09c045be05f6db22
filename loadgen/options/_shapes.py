"""Shapes of load: how people or arrivals come, one class each. A new shape is a class here, and nothing else.

The options are parsed into one of them once, by `shape_of`; from then on nobody looks at options to learn how
the load comes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from msgspec import structs

from loadgen.options._settings import Settings
from loadgen.options._shape import ChangingRate, EngineLoad, Load, Shape
from scenarios import Scenario, arrivals
from turnbench.limits import MOST_POINTS

LONGEST_HOLDS = 4
"""A level of --find-capacity at which it isn't clear whether limits hold takes so many times --hold."""
NEAR = 1.08
"""Lowest load that fails over highest that holds at which the search ends."""
_STEP = 4.0
LEAST_TURNS = 20
"""Fewer turns say nothing about limits."""
_AFTER_LAST_S = 1.0
"""A replay's window ends so long after the last request was due."""


class Closed(Shape, frozen=True, tag="closed"):
    """A fixed number of people, for -t or until somebody ends it."""

    users: int = 1

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        return True

    @classmethod
    def own(cls, settings: Settings) -> dict[str, Any]:
        return {"users": settings.users, "spawn_rate": settings.spawn_rate or 1.0}  # Locust's own default

    def for_scenario(
        self, scenario: Scenario, settings: Settings, people_given: bool, without: Iterable[int] = ()
    ) -> Shape:
        if people_given or not scenario.timed:
            return self
        return Replay.of(settings).for_scenario(scenario, settings, people_given, without)

    def loads(self) -> list[Load]:
        return [Load(self.users)]


class Levels(Shape, frozen=True, tag="levels"):
    """A sweep over numbers of people, each for --hold."""

    default_think_time = "none"
    takes_hold = True

    levels: list[int]

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        return settings.levels is not None

    @classmethod
    def own(cls, settings: Settings) -> dict[str, Any]:
        return {"levels": settings.levels or [settings.users]}

    def loads(self) -> list[Load]:
        return [Load(users) for users in self.levels]

    def recorded(self) -> dict[str, Any]:
        return {"users": None}  # not asked for: the levels say how many there are


class Once(Shape, frozen=True, tag="once"):
    """Every conversation of a finite scenario exactly once, all measured from the first person on."""

    ends = "exhausted"
    default_think_time = "none"

    users: int = 1
    by_level: bool = False
    """Whether --levels says how many people there are, and not -u."""

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        return settings.once

    @classmethod
    def own(cls, settings: Settings) -> dict[str, Any]:
        if settings.levels is not None:
            return {"users": settings.levels[0], "by_level": True}
        return {"users": settings.users, "spawn_rate": settings.spawn_rate or 1.0}

    @classmethod
    def problems(cls, settings: Settings, given: frozenset[str]) -> list[str]:
        if len(settings.levels or []) > 1:
            return ["--once and several --levels exclude each other: one level plays everything; give one"]
        return []

    def impossible(self, scenario: Scenario, slo: Mapping[str, float]) -> list[str]:
        if scenario.size is None:
            return [f"--once: scenario {scenario.name} has no end; choose a finite one such as paper"]
        return []

    def too_few_people(self, workers: int) -> list[str]:
        if self.users < workers:
            return [f"--once: {workers} workers need at least as many people; raise -u"]
        return []

    def loads(self) -> list[Load]:
        return [Load(self.users)]

    def engine_load(self) -> EngineLoad:
        return EngineLoad(once=True, most_people=self.users)

    def recorded(self) -> dict[str, Any]:
        return {"users": None} if self.by_level else {}


class OpenRate(Shape, frozen=True, tag="open_rate"):
    """Conversations arrive at one rate, for -t or until somebody ends it."""

    open_loop = True

    rate_per_s: float

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        return settings.arrival_rate is not None

    @classmethod
    def own(cls, settings: Settings) -> dict[str, Any]:
        assert settings.arrival_rate is not None
        return {"rate_per_s": settings.arrival_rate.first_per_s}

    def loads(self) -> list[Load]:
        return [Load(rate_per_s=self.rate_per_s)]


class OpenSteps(Shape, frozen=True, tag="open_steps"):
    """A sweep over rates of arrivals, each for --hold."""

    open_loop = True
    takes_hold = True

    rates_per_s: list[float]

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        return settings.arrival_rate is not None and settings.arrival_rate.steps_per_s is not None

    @classmethod
    def own(cls, settings: Settings) -> dict[str, Any]:
        assert settings.arrival_rate is not None
        return {"rates_per_s": settings.arrival_rate.steps_per_s or []}

    @classmethod
    def problems(cls, settings: Settings, given: frozenset[str]) -> list[str]:
        if "-t" in given:
            return ["--arrival-rate A,B,C and -t exclude each other: say with --hold how long each lasts"]
        return []

    def loads(self) -> list[Load]:
        return [Load(rate_per_s=rate) for rate in self.rates_per_s]


class Ramp(Shape, frozen=True, tag="ramp"):
    """Conversations arrive at a rate that changes evenly from one to another within -t."""

    open_loop = True

    from_per_s: float
    to_per_s: float

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        return settings.arrival_rate is not None and settings.arrival_rate.ramp_to_per_s is not None

    @classmethod
    def own(cls, settings: Settings) -> dict[str, Any]:
        rate = settings.arrival_rate
        assert rate is not None
        return {"from_per_s": rate.first_per_s, "to_per_s": rate.ramp_to_per_s}

    @classmethod
    def problems(cls, settings: Settings, given: frozenset[str]) -> list[str]:
        found = [] if "-t" in given else ["--arrival-rate A..B: say with -t within what time"]
        if "--until" in given:
            found.append("--until and --arrival-rate A..B exclude each other: a ramp has no one number")
        return found

    def loads(self) -> list[Load]:
        return [Load(rate_per_s=self.from_per_s, ramp_to_per_s=self.to_per_s)]

    def mean_rate_per_s(self, load: Load) -> float | None:
        run_s = self.run_time_s or 0.0
        rate = ChangingRate(self.from_per_s, self.to_per_s, run_s)
        return (rate.expected(run_s) - rate.expected(self.warmup_s)) / (run_s - self.warmup_s)


class Replay(Shape, frozen=True, tag="replay"):
    """The conversations of a trace begin at its own times, or at a multiple of them.

    To the rest of a run it is an open loop whose arrivals are known beforehand: its rate is that of the
    requests that are due in its window.
    """

    open_loop = True

    speed: float = 1.0
    rate_per_s: float = 0.0
    """Known once the scenario is."""

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        return settings.replay_speed is not None

    @classmethod
    def own(cls, settings: Settings) -> dict[str, Any]:
        return {"speed": settings.replay_speed or 1.0}

    def for_scenario(
        self, scenario: Scenario, settings: Settings, people_given: bool, without: Iterable[int] = ()
    ) -> Self:
        if settings.until is not None:
            raise ValueError(
                f"--until: scenario {scenario.name} is a trace, which has its own end; drop --until"
            )
        if not scenario.timed:
            raise ValueError(
                f"--replay-speed: scenario {scenario.name} has no times of its own; give a trace of requests"
            )
        skipped = frozenset(without)
        times_s = [at_s / self.speed for row, at_s in enumerate(arrivals(scenario)) if row not in skipped]
        end_s = settings.run_time_s or max(times_s, default=0.0) + _AFTER_LAST_S
        due = sum(self.warmup_s <= at_s < end_s for at_s in times_s)
        if not due:
            raise ValueError(
                f"no request of {scenario.name} is due between {self.warmup_s:g} s and {end_s:g} s of its "
                "replay; lower --warmup or raise -t"
            )
        return structs.replace(self, run_time_s=end_s, rate_per_s=due / (end_s - self.warmup_s))

    def impossible(self, scenario: Scenario, slo: Mapping[str, float]) -> list[str]:
        return []  # `for_scenario` says what is

    def loads(self) -> list[Load]:
        return [Load(rate_per_s=self.rate_per_s, replay_speed=self.speed)]

    def engine_load(self) -> EngineLoad:
        return EngineLoad(open_loop=True, most_people=None, scenario_lengths=True)

    def recorded(self) -> dict[str, Any]:
        return {
            "users": None,
            "run_time_s": self.run_time_s,
            "arrival_rate_per_s": self.rate_per_s,
            "replay_speed": self.speed,
        }


class _Search(Shape, frozen=True):
    """The highest load at which the limits hold: steps of four until both sides are known, then between."""

    ends = "decided"
    default_think_time = "none"
    takes_hold = True

    first: float
    """The first load to try."""
    whole: ClassVar[bool] = True
    """Whether a load is a number of people."""

    @classmethod
    def problems(cls, settings: Settings, given: frozenset[str]) -> list[str]:
        rate = settings.arrival_rate
        if rate is not None and (rate.steps_per_s is not None or rate.ramp_to_per_s is not None):
            return ["--find-capacity takes one --arrival-rate, the first to try; it chooses the others"]
        return []

    def impossible(self, scenario: Scenario, slo: Mapping[str, float]) -> list[str]:
        if slo.keys() - {"share"} or any(scenario.slo.values()):
            return []
        return ["--find-capacity: no limits to hold; give them, such as --slo ttft_ms=500,tpot_ms=50"]

    def loads(self) -> list[Load]:
        return [self._load(self.first)]

    def next_load(self, played: Sequence[tuple[Load, bool | None]]) -> Load | None:
        tried = {load.value: bool(held) for load, held in played}
        least = 0.0 if self.whole else LEAST_TURNS / (LONGEST_HOLDS * (self.hold_s or 1.0))
        found = next_load(tried, self.first, self.whole, least)
        return None if found is None else self._load(found)

    @property
    def how_many(self) -> str:
        return f"of at most {MOST_POINTS}"

    def rest_s(self, played: int) -> float | None:
        return None

    def window_end_ns(self, level_start_ns: int, window_start_ns: int) -> int | None:
        return window_start_ns + int(LONGEST_HOLDS * (self.hold_s or 0.0) * 1e9)

    def engine_load(self) -> EngineLoad:
        return EngineLoad(open_loop=self.open_loop, most_people=None if self.open_loop else int(self.first))

    def _load(self, value: float) -> Load:
        return Load(users=int(value)) if self.whole else Load(rate_per_s=value)


class Capacity(_Search, frozen=True, tag="capacity"):
    """--find-capacity in people."""

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        return settings.find_capacity

    @classmethod
    def own(cls, settings: Settings) -> dict[str, Any]:
        return {"first": float(settings.users)}


class OpenCapacity(_Search, frozen=True, tag="open_capacity"):
    """--find-capacity in conversations that arrive per second."""

    open_loop = True
    whole = False

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        return settings.find_capacity and settings.arrival_rate is not None

    @classmethod
    def own(cls, settings: Settings) -> dict[str, Any]:
        assert settings.arrival_rate is not None
        return {"first": settings.arrival_rate.first_per_s}


AnyShape = Closed | Levels | Once | OpenRate | OpenSteps | Ramp | Replay | Capacity | OpenCapacity
SHAPES: tuple[type[Shape], ...] = (
    OpenCapacity,
    Capacity,
    Replay,
    Ramp,
    OpenSteps,
    OpenRate,
    Once,
    Levels,
    Closed,
)
"""Every shape; the first that the options ask for is meant."""


def shape_of(settings: Settings, shapes: Sequence[type[Shape]] = SHAPES) -> Shape:
    """The shape of load that the options ask for."""
    return next(shape for shape in shapes if shape.is_asked(settings)).of(settings)


# --- the search for the capacity ---


def next_load(tried: dict[float, bool], first: float, whole: bool, least: float = 0.0) -> float | None:
    """The load to try after these (load to whether its limits held), or None when the search is over.

    With `whole` a load is a number of people, at least 1. Below `least` too little would happen to judge by:
    a search that found nothing to hold would go down for ever, through ever emptier points.
    """
    if not tried:
        return first
    if len(tried) >= MOST_POINTS:
        return None
    holds, fails = bracket(tried)
    if fails is None:
        return _rounded((holds or first) * _STEP, whole)
    if holds is None:
        lower = _rounded(fails / _STEP, whole)
        return None if lower in tried or lower < least else lower
    if fails / holds <= NEAR or (whole and fails - holds <= 1):
        return None
    middle = _rounded(math.sqrt(holds * fails), whole)
    return None if middle in tried else middle


def bracket(tried: Mapping[float, bool]) -> tuple[float | None, float | None]:
    """The highest load that holds below the lowest that fails, and that one."""
    fails = min((load for load, held in tried.items() if not held), default=None)
    holds = max(
        (load for load, held in tried.items() if held and (fails is None or load < fails)), default=None
    )
    return holds, fails


def _rounded(load: float, whole: bool) -> float:
    return float(max(round(load), 1)) if whole else float(f"{load:.4g}")
