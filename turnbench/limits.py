"""Limits on what a person should wait, and which turns meet them.

A limit is on a metric of `turnbench.metrics` that allows it; --slo and a scenario's `slo` give them by task.
Report and capacity search ask here, so that one turn meets its limits in both or in neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from turnbench.metrics import METRICS
from turnbench.outcomes import ANSWERED
from turnbench.turns import Bools, Floats, Turns

SHARE = "share"
DEFAULT_SHARE = 0.95
DEFAULT_PREFILL_MS = 2000.0
"""Deadline of a turn's first token for the fluidity index, where its TTFT has no limit."""
DEFAULT_DECODE_MS = 100.0
"""Deadline from token to token, where TPOT has no limit."""
Answer = Literal["holds", "fails", "open"]
SURE = 0.95
"""With which all loads that are asked about together are judged rightly."""
DOUBT = "not sure at 95 %"
MOST_POINTS = 12
"""Levels of a search for the capacity."""
_STEPS = 400
_ROUNDING = 1e-9
"""A value this close to its limit is at it: metrics are quotients of floats."""
_MOST = 1e15


@dataclass(frozen=True)
class TaskLimits:
    """One task's limits by metric, in the metric's unit, and the share of its turns that must meet all."""

    limits: dict[str, float] = field(default_factory=dict)
    share: float = DEFAULT_SHARE


def limit_keys() -> list[str]:
    """The metrics that may be limited."""
    return [metric.key for metric in METRICS.values() if metric.limit]


def limits_by_task(slo: Mapping[str, Mapping[str, float]]) -> dict[str, TaskLimits]:
    """The limits in force, from `slo` of run.json (task to key to limit); a task without any is absent."""
    found = {}
    for task, values in slo.items():
        limits = {key: values[key] for key in limit_keys() if key in values and abs(values[key]) < _MOST}
        if limits:
            found[task] = TaskLimits(limits, values.get(SHARE, DEFAULT_SHARE))
    return found


def meets(turns: Turns, by_task: Mapping[str, TaskLimits]) -> tuple[Bools, Bools]:
    """(whether a turn was answered and every limited value keeps its limit, whether its task has limits)."""
    met = np.array([outcome in ANSWERED for outcome in turns.outcomes], dtype=bool)
    task = np.array(turns.tasks, dtype=object)
    limited = np.zeros(len(met), dtype=bool)
    for name, item in by_task.items():
        mine = task == name
        limited |= mine
        for key, limit in item.limits.items():
            metric = METRICS[key]
            values = metric.compute(turns)
            kept = values >= limit - _ROUNDING if metric.higher_is_better else values <= limit + _ROUNDING
            unknown = np.isnan(values) & ~turns.buffered  # what a gateway hides may well be too slow
            met &= ~mine | kept | (unknown & metric.null_meets_limit)
    return met, limited


def holds(met: int, shares: Floats) -> bool | None:
    """Whether enough turns of a level meet their limits; None where no turn has any.

    `met` of the turns that have limits do; `shares`: the share that each one's task asks for. Tasks may ask
    for different ones: then the turns that must meet their limits are summed over tasks.
    """
    return bool(met >= shares.sum() - _ROUNDING) if len(shares) else None


def answer(conversations: Sequence[tuple[int, int]], share: float, loads: int) -> Answer:
    """Whether at least `share` of turns meet the limits, as far as these conversations can tell.

    `conversations`: of each, in the order in which they began, (turns that meet the limits, turns). `loads`:
    how many loads are asked about, all of which are right together with `SURE`. A share of 1 can't be shown
    by any number of turns: there the first miss decides.

    The test may be looked at after every turn. Let conversation i have n_i turns of which x_i meet the
    limits, and m_i be the most turns of any up to it. For a null share S, Z_i = (x_i - S n_i) / m_i has mean
    0 whatever the turns of a conversation have in common, and M = the mean over all shares p of one side of
    the product of 1 + (p - S) / (S (1 - S)) Z_i is a non-negative martingale; by Ville's inequality it ever
    reaches 1 / a with a chance of at most a (Robbins 1970, Waudby-Smith and Ramdas 2024). With one turn a
    conversation it is the binomial likelihood ratio. a is what may err, 5 %, over the number of loads.
    """
    counts = np.array(conversations, dtype=np.float64).reshape(-1, 2)
    met, turns = counts.sum(axis=0)
    need = math.log(loads / (1 - SURE))
    if share >= 1:
        return "open" if met == turns else "fails"
    if share <= 0:
        return "holds"
    if not turns:
        return "open"
    apart = (counts[:, 0] - share * counts[:, 1]) / np.maximum.accumulate(np.maximum(counts[:, 1], 1))
    if met / turns >= share:
        return "holds" if _evidence(apart, share, share, 1.0) >= need else "open"
    return "fails" if _evidence(apart, share, 0.0, share) >= need else "open"


def _evidence(apart: Floats, share: float, low: float, high: float) -> float:
    """Logarithm of M, the mean over shares in [low, high], by the midpoint rule."""
    shares = low + (high - low) * (np.arange(_STEPS) + 0.5) / _STEPS
    bets = (shares - share) / (share * (1 - share))
    kinds, times = np.unique(apart, return_counts=True)  # few: conversations are short
    logs = np.log1p(np.outer(bets, kinds)) @ times
    return float(logs.max() + np.log(np.exp(logs - logs.max()).mean()))


def deadlines_ms(tasks: list[str], by_task: Mapping[str, TaskLimits]) -> tuple[Floats, Floats]:
    """(deadline of the first token, deadline from token to token) of each turn, for the fluidity index."""

    def of(key: str, default: float) -> Floats:
        known = {task: item.limits.get(key, default) for task, item in by_task.items()}
        return np.array([known.get(task, default) for task in tasks], dtype=np.float64)

    return of("ttft_ms", DEFAULT_PREFILL_MS), of("tpot_ms", DEFAULT_DECODE_MS)
