"""How long a sweep will take: at first from its plan, then from what its runs really took."""

from __future__ import annotations

import heapq
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from loadgen.engine._history import EXACT_TOKENS
from loadgen.options._command_line import OptionErrors
from loadgen.options._settings import Settings
from loadgen.options._shape import Shape
from loadgen.options._shapes import shape_of
from scenarios import Conversation, Scenario, ScenarioError, load, plan
from turnbench.formats import SweepEntry
from turnbench.sweep.plan import SweepPlan
from turnbench.sweep.runs import run_options, served_for, settings_of

RUN_S = 3.0
"""A run's own start and end; what it really is shows with the first runs done."""
_SAMPLE = 100
_CHARS_PER_TOKEN = 4

Pace = Callable[[int, int, int], float]
"""Seconds of one answer, from the number at once, its tokens and its prompt's tokens."""


@dataclass(frozen=True)
class RunForecast:
    """How long the levels of one run may take, without the run's own start and end."""

    plays_s: float
    bounded: bool
    """True: no longer, but for a busy machine. False: at least so long, answers and drains come on top."""


def forecasts_of(sweep: SweepPlan, runs: list[SweepEntry]) -> dict[str, RunForecast | None]:
    """For each run, by its directory; asks `serve` once for each model and precision."""
    needed = any(run_options(sweep, run).get("once") for run in runs)
    paces = {served: pace_of(sweep, *served) if needed else None for served in map(served_for, runs)}
    return {run.dir: forecast_of(sweep, run, paces[served_for(run)]) for run in runs}


def forecast_of(sweep: SweepPlan, run: SweepEntry, pace: Pace | None) -> RunForecast | None:
    """From the options of the run alone; None where they don't say, or where the run will refuse them."""
    try:
        settings = settings_of(sweep, run)
        shape = shape_of(settings)
        if shape.ends == "exhausted":
            return None if pace is None else _played_once(settings, shape, pace)
    except (OptionErrors, ScenarioError):
        return None
    if shape.run_time_s is not None:
        return RunForecast(shape.run_time_s, False)
    if shape.hold_s is None or shape.ends != "time":
        return None
    return RunForecast(len(shape.loads()) * (shape.warmup_s + shape.hold_s), False)


def _played_once(settings: Settings, shape: Shape, pace: Pace) -> RunForecast | None:
    """All conversations of a scenario, so many at once, each answer as long as it may be."""
    scenario, sample = _sample_of(settings.scenario)
    if scenario.size is None:
        return None
    people = min(shape.loads()[0].users or 1, scenario.size)
    limit = settings.max_tokens or (EXACT_TOKENS if settings.exact_tokens else None)
    each_s = sum(
        pace(people, limit or turn.max_tokens, len(turn.user) // _CHARS_PER_TOKEN)
        for conversation in sample
        for turn in conversation.turns
    ) / len(sample)
    return RunForecast(math.ceil(scenario.size / people) * each_s, True)


@cache
def _sample_of(name: str) -> tuple[Scenario, list[Conversation]]:
    """A scenario, and some of its conversations from all over it."""
    scenario = load(name)
    size = scenario.size or 0
    return scenario, [plan(scenario, 0, k) for k in range(0, size, max(1, size // _SAMPLE))]


def pace_of(sweep: SweepPlan, model: str, precision: str | None) -> Pace | None:
    """By the roofline of the plan's hardware, as `serve` knows it; None where it has no facts."""
    if sweep.endpoints or sweep.backend == "vllm-cpu":
        return None
    command = [sys.executable, "-P", "-m", "serve.pace", model, "--hardware", sweep.hardware]
    command += ["--precision", precision or "fp16"]
    asked = subprocess.run(command, capture_output=True, check=False, text=True)
    if asked.returncode:
        return None  # its server says what is wrong
    facts = json.loads(asked.stdout)

    def answer_s(people: int, tokens: int, prompt_tokens: int) -> float:
        context = people * (prompt_tokens + tokens / 2)
        step_s = facts["step_s"] + people * facts["step_answer_s"] + context * facts["step_context_s"]
        prefill_s = people * prompt_tokens * facts["prefill_token_s"]
        return float(facts["front_end_s"] + prefill_s + tokens * step_s)

    return answer_s


def starts_at_once(runs: int, places: int) -> int:
    """How many servers and runs may start together: a start takes a core, and runs under way need the others.

    All of them, where none is under way while another starts.
    """
    return places if runs <= places else max(1, (os.cpu_count() or 1) // 2)


def scale_of(done: Iterable[tuple[float, float]]) -> float:
    """What levels took over what was forecast of them, from pairs (took, forecast); 1 before the first."""
    pairs = list(done)
    forecast = sum(each for _, each in pairs)
    return sum(took for took, _ in pairs) / forecast if forecast else 1.0


def left_s(running: Iterable[float], waiting: Iterable[float], places: int) -> float:
    """Until the last run ends: `running` is what each still needs, `waiting` what each takes, in order.

    Each waiting one begins at the place that is free first, as in the sweep itself.
    """
    free = sorted(max(each, 0.0) for each in running)
    free += [0.0] * (places - len(free))
    heapq.heapify(free)
    for takes in waiting:
        heapq.heappush(free, heapq.heappop(free) + takes)
    return max(free, default=0.0)
