"""How long a sweep will take: said before it begins from its plan, then from what its runs really took."""

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

from loadgen.options import _values as values
from scenarios import Conversation, Scenario, ScenarioError, load, plan
from turnbench.sweep.cells import Cell, is_on, run_options
from turnbench.sweep.plan import SweepPlan
from turnbench.units import seconds

RUN_S = 3.0
"""A run's own start and end; what it really is shows with the first runs done."""
_SAMPLE = 100
_EXACT_TOKENS = 256
_CHARS_PER_TOKEN = 4

Pace = Callable[[int, int, int], float]
"""Seconds of one answer, from the number at once, its tokens and its prompt's tokens."""


def starts_at_once(runs: int, places: int) -> int:
    """How many servers and runs may start together: a start takes a core, and runs under way need the others.

    All of them, where none is under way while another starts.
    """
    return places if runs <= places else max(1, (os.cpu_count() or 1) // 2)


@dataclass(frozen=True)
class Guess:
    """How long the levels of one run may take, without the run's own start and end."""

    plays_s: float
    bounded: bool
    """True: no longer, but for a busy machine. False: at least so long, answers and drains come on top."""


def guesses_of(sweep: SweepPlan, cells: list[Cell]) -> dict[str, Guess | None]:
    """For each run, by its directory; asks `serve` once for each model and precision."""
    servers = dict.fromkeys(cell.server for cell in cells)
    needed = any(is_on(run_options(sweep, cell), "once") for cell in cells)
    paces = {server: pace_of(sweep, *server) if needed else None for server in servers}
    return {cell.dir: guess_of(sweep, cell, paces[cell.server]) for cell in cells}


def guess_of(sweep: SweepPlan, cell: Cell, pace: Pace | None) -> Guess | None:
    """From the options of the run alone; None where they don't say, or where its first run will complain."""
    options = run_options(sweep, cell)
    try:
        if is_on(options, "once"):
            return None if pace is None else _guess_once(options, pace)
        spans = [seconds(options.get("warmup", "5s")) + seconds(options.get("hold", "60s"))]
        if "run-time" in options:
            return Guess(seconds(options["run-time"]), False)
        levels = values.levels(options["levels"])
        return Guess(len(levels) * spans[0], False)
    except (KeyError, ValueError, ScenarioError):
        return None


def _guess_once(options: dict[str, str], pace: Pace) -> Guess | None:
    """All conversations of a scenario, so many at once, each answer as long as it may be."""
    scenario, sample = _sample_of(options.get("scenario", "chat"))
    if scenario.size is None:
        return None
    people = int(options.get("levels") or options.get("users") or 1)
    people = min(people, scenario.size)
    limit = int(options["max-tokens"]) if "max-tokens" in options else None
    if limit is None and is_on(options, "exact-tokens"):
        limit = _EXACT_TOKENS
    turns = [turn for talk in sample for turn in talk.turns]
    each_s = sum(
        pace(people, limit or turn.max_tokens, len(turn.user) // _CHARS_PER_TOKEN) for turn in turns
    ) / len(sample)
    return Guess(math.ceil(scenario.size / people) * each_s, True)


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
        step_s = facts["step_s"] + context * facts["step_context_s"]
        prefill_s = people * prompt_tokens * facts["prefill_token_s"]
        return float(facts["front_end_s"] + prefill_s + tokens * step_s)

    return answer_s


def scale_of(done: Iterable[tuple[float, float]]) -> float:
    """What levels took over what was guessed of them, from pairs (took, guessed); 1 before the first."""
    pairs = list(done)
    guessed = sum(guess for _, guess in pairs)
    return sum(took for took, _ in pairs) / guessed if guessed else 1.0


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
