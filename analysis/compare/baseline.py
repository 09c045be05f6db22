"""Is run A worse than baseline B? Paired cells, Holm's adjustment (1979), and a practical threshold.

The change of a cell is the ratio of its two medians. Its interval joins the two medians' own (Donner and
Zou 2012, MOVER, on the log scale); where runs were repeated, runs are the unit: a t interval of the mean log
medians, so that what differs from run to run counts. Without repeats that difference is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, isfinite, log, sqrt
from typing import Literal

import numpy as np
import pandas as pd

from analysis.compare.variants import clusters
from analysis.stats.bootstrap import LEAST_CONVERSATIONS, conversations_in
from analysis.stats.distributions import normal_quantile, t_quantile, t_tail
from analysis.stats.percentiles import allowed, effective_turns, quantile_ends
from analysis.turns.frame import floats
from turnbench.formats.comparison import MedianChange
from turnbench.turns import Floats, Ints

Key = tuple[str, str, str, str]
"""Model ("" where each side has only one), task, load and metric of a cell."""
Verdict = Literal["worse", "better", "same"]
METRICS = ("ttft_ms", "ttg_ms", "tpot_ms")
THRESHOLD = 0.05
_ALPHA = 0.05
_LEAST_SE = 1e-6
_MOST_LOG = 700.0
"""exp of more overflows."""


@dataclass(frozen=True)
class Side:
    """One metric of one cell on one side: its turns' values and conversations, a run at a time."""

    runs: list[tuple[Floats, Ints]]

    def judgeable(self) -> bool:
        """Whether every run has enough conversations, and enough turns for a median."""
        return all(
            conversations_in(talks) >= LEAST_CONVERSATIONS
            and "p50" in allowed(effective_turns(values, talks))
            for values, talks in self.runs
        )

    def log_medians(self) -> Floats:
        """Of each run; infinite where it falls among unfinished turns."""
        return np.array([log(_median(values)) for values, _ in self.runs])

    def median(self) -> float:
        """The geometric mean of the runs' medians."""
        return exp(float(np.mean(self.log_medians())))

    def ends(self, confidence: float) -> tuple[float, float]:
        """Interval of a single run's median; an end that is not known is infinite."""
        values, talks = self.runs[0]
        low, high = quantile_ends(np.sort(values), values, talks, 0.5, confidence)
        return low or _median(values), inf if high is None else high


@dataclass(frozen=True)
class SidePair:
    """Run A's side of a cell with baseline B's."""

    key: Key
    a: Side
    b: Side

    @property
    def repeated(self) -> bool:
        """Whether a side has several runs: then runs are the unit."""
        return len(self.a.runs) + len(self.b.runs) > 2

    @property
    def finite(self) -> bool:
        return isfinite(self.a.median()) and isfinite(self.b.median())

    @property
    def ratio(self) -> float:
        """A's median over B's."""
        if isfinite(self.b.median()):
            return self.a.median() / self.b.median()
        return 1.0 if self.a.median() == inf else 0.0

    def clearness(self) -> float:
        """How many standard errors apart; with repeats, as a quantile of the normal with the same p."""
        if not self.finite:
            return 0.0 if self.a.median() == self.b.median() else inf
        apart = abs(log(self.ratio))
        if self.repeated:
            se, df = self._repeat_error()
            return -normal_quantile(max(t_tail(apart / max(se, _LEAST_SE), df), 1e-300))
        widths = [log(high / low) / 2 for low, high in (self.a.ends(0.95), self.b.ends(0.95))]
        return apart / max(sqrt(sum((width / 1.96) ** 2 for width in widths)), _LEAST_SE)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Of the ratio."""
        a, b = self.a.median(), self.b.median()
        if self.repeated and self.finite:
            se, df = self._repeat_error()
            width = t_quantile((1 + confidence) / 2, df) * se
            return exp(log(a / b) - width), exp(min(log(a / b) + width, _MOST_LOG))
        (a_low, a_high), (b_low, b_high) = self.a.ends(confidence), self.b.ends(confidence)
        if not self.finite:
            return (a_low / b_high if isfinite(b_high) else 0.0), inf
        up_a, up_b = (
            (log(high / mid) if isfinite(high) else inf) for high, mid in ((a_high, a), (b_high, b))
        )
        low = sqrt(log(a / a_low) ** 2 + up_b**2)
        high = sqrt(up_a**2 + log(b / b_low) ** 2)
        return exp(log(a / b) - low), exp(min(log(a / b) + high, _MOST_LOG))

    def _repeat_error(self) -> tuple[float, int]:
        """(standard error of the difference of mean log medians, degrees of freedom), runs as the unit."""
        sides = [self.a.log_medians(), self.b.log_medians()]
        df = sum(len(side) - 1 for side in sides)
        variance = sum(float(((side - side.mean()) ** 2).sum()) for side in sides) / df
        return sqrt(variance * sum(1 / len(side) for side in sides)), df


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
        """As compare.json has it: null for what isn't finite."""
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
    models = [{name for frame in side for name in frame["name"]} for side in (a, b)]
    # Cells pair by model too, unless each side has one model: then those two are compared.
    alone = all(len(names) == 1 for names in models)
    keys = ["task", "load"] if alone else ["name", "task", "load"]
    sides_a, sides_b = _sides(a, keys), _sides(b, keys)
    judged, unjudged = [], []
    for key in sorted(set(sides_a) | set(sides_b)):
        side_a, side_b = sides_a.get(key), sides_b.get(key)
        if side_a and side_b and side_a.judgeable() and side_b.judgeable():
            judged.append(SidePair(key, side_a, side_b))
        elif key[-1] == "ttg_ms":
            unjudged.append(" ".join(part for part in key[:-1] if part))
    return Comparison(_judged(judged, threshold), unjudged, (len(a), len(b)))


def _sides(frames: list[pd.DataFrame], keys: list[str]) -> dict[Key, Side]:
    found: dict[Key, Side] = {}
    for frame in frames:
        for names, rows in frame.groupby(keys, sort=False):
            talks = clusters(rows)
            for metric in METRICS:
                values = floats(rows[metric])
                values[(rows["outcome"] == "unfinished").to_numpy()] = inf
                keep = ~np.isnan(values)
                if keep.any():
                    model, task, load = (*[""] * (3 - len(keys)), *map(str, names))
                    found.setdefault((model, task, load, metric), Side([])).runs.append(
                        (values[keep], talks[keep])
                    )
    return found


def _median(values: Floats) -> float:
    with np.errstate(invalid="ignore"):
        return max(float(np.median(values)), 1e-9) if np.isfinite(np.median(values)) else inf


def _judged(pairs: list[SidePair], threshold: float) -> list[Change]:
    """Holm's steps: the clearest change against alpha / m, the next against alpha / (m - 1) and so on."""
    changes, still_clear = [], True
    for step, pair in enumerate(sorted(pairs, key=lambda pair: -pair.clearness())):
        ends, ratio = pair.interval(1 - _ALPHA / (len(pairs) - step)), pair.ratio
        still_clear = still_clear and (ends[0] > 1 or ends[1] < 1)
        verdict: Verdict = "same"
        if still_clear and (ratio > 1 + threshold or ratio < 1 / (1 + threshold)):
            verdict = "worse" if ratio > 1 else "better"
        changes.append(Change(*pair.key, pair.a.median(), pair.b.median(), ratio, ends, verdict))
    return sorted(changes, key=lambda c: (c.model, c.task, len(c.load), c.load, METRICS.index(c.metric)))


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None
