"""Is run A worse than baseline B? Paired cells, Holm's adjustment (1979), and a practical threshold.

The change of a cell is the ratio of its two medians. Its interval joins the two medians' own (Donner and
Zou 2012, MOVER, on the log scale); where runs were repeated, runs are the unit: a t interval of the mean log
medians, so that what differs from run to run counts. Without repeats that difference is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, isfinite, log, sqrt
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.compare.variants import clusters
from analysis.stats.bootstrap import LEAST_CONVERSATIONS, conversations_in
from analysis.stats.distributions import normal_quantile, t_quantile, t_tail
from analysis.stats.percentiles import allowed, effective_turns, quantile_ends
from analysis.turns.frame import floats
from turnbench.formats.comparison import MedianChange
from turnbench.turns import Floats, Ints

Verdict = Literal["worse", "better", "same"]
METRICS = ("ttft_ms", "ttg_ms", "tpot_ms")
THRESHOLD = 0.05
_ALPHA = 0.05
_LEAST_SE = 1e-6


@dataclass(frozen=True)
class Side:
    """One metric of one cell on one side: its turns, a run at a time."""

    runs: list[tuple[Floats, Ints]]

    def median(self) -> float:
        """The geometric mean of the runs' medians; infinite where one falls among unfinished turns."""
        return exp(float(np.mean([log(_median(values)) for values, _ in self.runs])))

    def ends(self, confidence: float) -> tuple[float, float]:
        """Interval of a single run's median; an end that can't be told is open."""
        values, talks = self.runs[0]
        low, high = quantile_ends(np.sort(values), values, talks, 0.5, confidence)
        return low or _median(values), inf if high is None else high


@dataclass
class Change:
    """One cell's change; `ratio` - 1 is the share by which A's median is above B's."""

    model: str
    task: str
    load: str
    metric: str
    a_ms: float
    b_ms: float
    ratio: float
    ci: tuple[float, float]
    """Holm-adjusted interval of the ratio."""
    verdict: Verdict
    """worse, better (both by more than the threshold, and the interval excludes 1) or same."""

    def written(self) -> MedianChange:
        """As it stands in compare.json: null for what isn't finite."""
        return MedianChange(
            model=self.model,
            task=self.task,
            load=self.load,
            metric=self.metric,
            a_ms=_finite(self.a_ms),
            b_ms=_finite(self.b_ms),
            ratio=_finite(self.ratio),
            ci=[_finite(end) for end in self.ci],
            verdict=self.verdict,
        )


@dataclass(frozen=True)
class Comparison:
    """All judged cells, those that were too small to judge, and how many runs stood on each side."""

    changes: list[Change]
    unjudged: list[str]
    runs: tuple[int, int]
    emulated: tuple[bool, bool] = (False, False)
    """Whether a run of A, or of B, is an emulator's."""

    @property
    def regressions(self) -> list[Change]:
        return [change for change in self.changes if change.verdict == "worse"]


def compare(a: list[pd.DataFrame], b: list[pd.DataFrame], threshold: float = THRESHOLD) -> Comparison:
    """Compare the turns of runs A (one table each, with `name`, `task`, `load`) with those of baseline B."""
    keys = _keys(a, b)
    sides_a, sides_b = _sides(a, keys), _sides(b, keys)
    judged, unjudged = [], []
    for key in sorted(set(sides_a) | set(sides_b)):
        pair = sides_a.get(key), sides_b.get(key)
        if all(side is not None and _large(side) for side in pair):
            judged.append((key, *pair))
        elif key[-1] == "ttg_ms":
            unjudged.append(" ".join(part for part in key[:-1] if part))
    changes = _judged(judged, threshold)
    return Comparison(changes, unjudged, (len(a), len(b)))


def _keys(a: list[pd.DataFrame], b: list[pd.DataFrame]) -> list[str]:
    """Cells pair by model too, unless each side has one model: then those two are compared."""
    models = [{name for frame in side for name in frame["name"]} for side in (a, b)]
    return ["task", "load"] if all(len(names) == 1 for names in models) else ["name", "task", "load"]


def _sides(frames: list[pd.DataFrame], keys: list[str]) -> dict[tuple[str, ...], Side]:
    found: dict[tuple[str, ...], Side] = {}
    for frame in frames:
        for names, rows in frame.groupby(keys, sort=False):
            talks = clusters(rows)
            for metric in METRICS:
                values = floats(rows[metric])
                values[(rows["outcome"] == "unfinished").to_numpy()] = inf
                keep = ~np.isnan(values)
                cell = ("",) * (3 - len(keys)) + tuple(map(str, names)) + (metric,)
                if keep.any():
                    found.setdefault(cell, Side([])).runs.append((values[keep], talks[keep]))
    return found


def _large(side: Side) -> bool:
    return all(
        conversations_in(talks) >= LEAST_CONVERSATIONS and "p50" in allowed(effective_turns(values, talks))
        for values, talks in side.runs
    )


def _median(values: Floats) -> float:
    with np.errstate(invalid="ignore"):
        return max(float(np.median(values)), 1e-9) if np.isfinite(np.median(values)) else inf


def _judged(cells: list[Any], threshold: float) -> list[Change]:
    """Holm's steps: the clearest change against alpha / m, the next against alpha / (m - 1) and so on."""
    order = sorted(cells, key=lambda cell: -_clearness(cell[1], cell[2]))
    changes, open_ = [], True
    for step, (key, a, b) in enumerate(order):
        ends = _interval(a, b, 1 - _ALPHA / (len(order) - step))
        ratio = a.median() / b.median() if isfinite(b.median()) else (1.0 if a.median() == inf else 0.0)
        open_ = open_ and (ends[0] > 1 or ends[1] < 1)
        verdict: Verdict = "same"
        if open_ and (ratio > 1 + threshold or ratio < 1 / (1 + threshold)):
            verdict = "worse" if ratio > 1 else "better"
        model, task, load, metric = key
        changes.append(Change(model, task, load, metric, a.median(), b.median(), ratio, ends, verdict))
    return sorted(changes, key=lambda c: (c.model, c.task, len(c.load), c.load, METRICS.index(c.metric)))


def _clearness(a: Side, b: Side) -> float:
    """How many standard errors apart; with repeats, as a quantile of the normal with the same p."""
    if not isfinite(a.median()) or not isfinite(b.median()):
        return 0.0 if a.median() == b.median() else inf
    apart = abs(log(a.median() / b.median()))
    if len(a.runs) + len(b.runs) > 2:
        se, df = _repeat_error(a, b)
        return -normal_quantile(max(t_tail(apart / max(se, _LEAST_SE), df), 1e-300))
    widths = [log(high / low) / 2 for low, high in (a.ends(0.95), b.ends(0.95))]
    return apart / max(sqrt(sum((width / 1.96) ** 2 for width in widths)), _LEAST_SE)


def _interval(a: Side, b: Side, confidence: float) -> tuple[float, float]:
    if len(a.runs) + len(b.runs) > 2 and isfinite(a.median()) and isfinite(b.median()):
        se, df = _repeat_error(a, b)
        apart, width = log(a.median() / b.median()), t_quantile((1 + confidence) / 2, df) * se
        return exp(apart - width), exp(min(apart + width, 700))
    (a_low, a_high), (b_low, b_high) = a.ends(confidence), b.ends(confidence)
    a_mid, b_mid = a.median(), b.median()
    if not (isfinite(a_mid) and isfinite(b_mid)):
        return (a_low / b_high if isfinite(b_high) else 0.0), inf
    apart = log(a_mid / b_mid)
    low = sqrt(log(a_mid / a_low) ** 2 + _log(b_high / b_mid) ** 2)
    high = sqrt(_log(a_high / a_mid) ** 2 + log(b_mid / b_low) ** 2)
    return exp(apart - low), exp(min(apart + high, 700))


def _log(ratio: float) -> float:
    return log(ratio) if isfinite(ratio) else inf


def _repeat_error(a: Side, b: Side) -> tuple[float, int]:
    """(standard error of the difference of mean log medians, degrees of freedom), runs as the unit."""
    sides = [np.array([log(_median(values)) for values, _ in side.runs]) for side in (a, b)]
    df = sum(len(side) - 1 for side in sides)
    variance = sum(float(((side - side.mean()) ** 2).sum()) for side in sides) / df
    return sqrt(variance * sum(1 / len(side) for side in sides)), df


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None
