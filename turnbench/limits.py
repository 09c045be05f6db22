"""Limits on what a person should wait, and which turns meet them.

A limit is on a metric of `turnbench.metrics` that allows it; --slo and a scenario's `slo` give them by task.
Report and capacity search ask here, so that one turn meets its limits in both or in neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


def deadlines_ms(tasks: list[str], by_task: Mapping[str, TaskLimits]) -> tuple[Floats, Floats]:
    """(deadline of the first token, deadline from token to token) of each turn, for the fluidity index."""

    def of(key: str, default: float) -> Floats:
        known = {task: item.limits.get(key, default) for task, item in by_task.items()}
        return np.array([known.get(task, default) for task in tasks], dtype=np.float64)

    return of("ttft_ms", DEFAULT_PREFILL_MS), of("tpot_ms", DEFAULT_DECODE_MS)
