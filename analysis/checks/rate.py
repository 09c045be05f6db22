"""Open loop: was the arrival rate reached that the run asked for?"""

from __future__ import annotations

import numpy as np

from analysis.checks.finding import of_level
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import Finding, Severity
from turnbench.turns import Bools, Ints

INVALID_RATE = 0.95
SUSPECT_RATE = 0.99
_SIGMAS = 3.0


def rate_reached(study: Study, level: Level) -> float | None:
    """Conversations begun in the window as a share of those that should have been; None in closed loop.

    Arrivals are random, so a window may well hold fewer than rate x length. Those that became due in it
    are what is compared, drops included; only a shortfall from rate x length that chance does not explain
    (three standard deviations of the arrival process) is taken for one.
    """
    if not level.arrival_rate_per_s or level.window_s <= 0:
        return None
    first = study.frame[study.frame["counts"] & (study.frame["turn"] == 1)]
    due = _inside(first["due_ns"].to_numpy(dtype=np.int64), level)
    # A turn that could not even be sent (no connection) was begun all the same: that is the server's.
    sent = _inside(first["moment_ns"].to_numpy(dtype=np.int64), level) & (first["outcome"] != "dropped")
    wanted = int(due.sum()) + _dropped(study, level)
    nominal = level.arrival_rate_per_s * level.window_s
    noise = _SIGMAS * np.sqrt(nominal / _burstiness(study))
    if nominal - wanted > noise:
        wanted = round(nominal)
    return min(float(sent.sum()) / wanted, 1.0) if wanted else None


def _inside(at_ns: Ints, level: Level) -> Bools:
    return (at_ns >= level.window_start_ns) & (at_ns < level.window_end_ns)


def _dropped(study: Study, level: Level) -> int:
    """Turns dropped in the window by the health lines, where they have no record of their own."""
    if (study.frame["outcome"] == "dropped").any():
        return 0
    total = 0
    for _, lines in study.health.dropna(subset=["dropped"]).groupby("worker"):
        before = lines[lines["t_ns"] <= level.window_start_ns]["dropped"]
        until = lines[lines["t_ns"] <= level.window_end_ns]["dropped"]
        total += int(until.max() if len(until) else 0) - int(before.max() if len(before) else 0)
    return total


def _burstiness(study: Study) -> float:
    """Shape of the gamma gaps: the variance of a count is its mean over this."""
    shape = study.manifest.settings.get("burstiness")
    return float(shape) if isinstance(shape, int | float) and shape > 0 else 1.0


def rate_findings(study: Study, level: Level) -> list[Finding]:
    """Below 99 % suspect, below 95 % invalid."""
    reached = rate_reached(study, level)
    if reached is None or reached >= SUSPECT_RATE:
        return []
    severity: Severity = "invalid" if reached < INVALID_RATE else "suspect"
    what = f"{reached:.1%} of the conversations due at {level.arrival_rate_per_s:g}/s began"
    remedy = "add workers (--processes) or machines, or lower --arrival-rate"
    return [of_level(level.index, severity, "rate", what, remedy)]
