"""One metric of one cell on both sides of a comparison: which turns belong together, the ratio of the medians
and its interval.

The interval joins the two medians' own (Donner and Zou 2012, MOVER, on the log scale); of turns in pairs it
is that of the median of their ratios (Woodruff 1952). Where runs were repeated, runs are the unit: a t
interval of the mean log medians, so that what differs from run to run counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import exp, inf, isfinite, log, sqrt

import numpy as np
import pandas as pd

from analysis.compare.variants import clusters
from analysis.measures.censored import is_censored, ranked
from analysis.turns.frame import floats
from turnbench.metrics import METRICS
from turnbench.stats.bootstrap import LEAST_CONVERSATIONS, conversations_in
from turnbench.stats.distributions import normal_quantile, t_quantile, t_tail
from turnbench.stats.percentiles import LEAST_N, effective_at, quantile_ends
from turnbench.turns import Floats, Ints

_LEAST_SE = 1e-6
_MOST_LOG = 700.0
"""exp of more overflows."""
_SAME_PROMPTS = 0.95
_LEAST_LEFT = 0.5


@dataclass(frozen=True)
class Side:
    """One metric of one cell on one side: its turns' values and conversations, a run at a time."""

    runs: list[tuple[Floats, Ints]]

    def judgeable(self) -> bool:
        """Whether every run has enough conversations, and enough turns for a median."""
        return bool(self.runs) and all(
            conversations_in(talks) >= LEAST_CONVERSATIONS
            and effective_at(values, talks, 0.5) >= LEAST_N["p50"]
            for values, talks in self.runs
        )

    @cached_property
    def log_medians(self) -> Floats:
        """Of each run; infinite where it falls among unfinished turns."""
        return np.array([log(_median(values)) for values, _ in self.runs])

    def median(self) -> float:
        """The geometric mean of the runs' medians."""
        return exp(float(np.mean(self.log_medians)))

    def ends(self, confidence: float) -> tuple[float, float]:
        """Interval of a single run's median; an end that is not known is infinite."""
        values, talks = self.runs[0]
        low, high = quantile_ends(np.sort(values), values, talks, 0.5, confidence)
        return low or _median(values), inf if high is None else high


@dataclass(frozen=True)
class SidePair:
    """Run A's side of a cell with baseline B's."""

    a: Side
    b: Side
    paired: bool = False
    """Whether value i of every run is of the same turn with the same prompt."""

    @property
    def repeated(self) -> bool:
        """Whether a side has several runs: then runs are the unit."""
        return len(self.a.runs) + len(self.b.runs) > 2

    @property
    def finite(self) -> bool:
        return isfinite(self.a.median()) and isfinite(self.b.median())

    @property
    def ratio(self) -> float:
        """A's median over B's; of turns in pairs the median of their ratios."""
        if self.paired and not self.repeated and self.finite:
            return exp(float(np.median(self._log_ratios())))
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
        if self.paired:
            low, high = self._pair_ends(0.95)
            return apart / max((log(high) - log(low)) / 2 / 1.96, _LEAST_SE) if low > 0 else 0.0
        widths = [log(high / low) / 2 for low, high in (self.a.ends(0.95), self.b.ends(0.95))]
        return apart / max(sqrt(sum((width / 1.96) ** 2 for width in widths)), _LEAST_SE)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Of the ratio."""
        a, b = self.a.median(), self.b.median()
        if self.repeated and self.finite:
            se, df = self._repeat_error()
            width = t_quantile((1 + confidence) / 2, df) * se
            return exp(log(a / b) - width), exp(min(log(a / b) + width, _MOST_LOG))
        if self.paired and self.finite:
            return self._pair_ends(confidence)
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
        sides = [self.a.log_medians, self.b.log_medians]
        df = sum(len(side) - 1 for side in sides)
        variance = sum(float(((side - side.mean()) ** 2).sum()) for side in sides) / df
        return sqrt(variance * sum(1 / len(side) for side in sides)), df

    def _log_ratios(self) -> Floats:
        """Of turns in pairs; a pair of which neither ended says nothing and counts as equal."""
        (a, _), (b, _) = self.a.runs[0], self.b.runs[0]
        ratios = np.zeros(len(a))
        known = np.isfinite(a) | np.isfinite(b)
        ratios[known] = np.log(np.maximum(a[known], 1e-9)) - np.log(np.maximum(b[known], 1e-9))
        return ratios

    def _pair_ends(self, confidence: float) -> tuple[float, float]:
        ratios = self._log_ratios()
        low, high = quantile_ends(np.sort(ratios), ratios, self.a.runs[0][1], 0.5, confidence)
        return (0.0 if low is None else exp(low)), (inf if high is None else exp(min(high, _MOST_LOG)))


@dataclass(frozen=True)
class Waits:
    """The turns of one cell that have waits: answered and censored ones, a table a run and side."""

    a: list[pd.DataFrame]
    b: list[pd.DataFrame]
    paired: bool
    """Whether row i of every table is the same turn with the same prompt."""

    @cached_property
    def _talks(self) -> tuple[list[Ints], list[Ints]]:
        return [clusters(rows) for rows in self.a], [clusters(rows) for rows in self.b]

    def pair(self, metric: str) -> SidePair:
        """Both sides of one metric; `ttg_equal_ms`: see `at_equal_length`."""
        known = METRICS["ttg_ms" if metric == "ttg_equal_ms" else metric]
        times_a = (
            self.at_equal_length() if metric == "ttg_equal_ms" else [ranked(rows, known) for rows in self.a]
        )
        a = list(zip(times_a, self._talks[0], strict=True))
        b = list(zip([ranked(rows, known) for rows in self.b], self._talks[1], strict=True))
        paired = self.paired and not any(np.isnan(values).any() for values, _ in a + b)
        return SidePair(_side(a), _side(b), paired)

    def at_equal_length(self) -> list[Floats]:
        """Each turn of A's TTFT + M TPOT, with M the tokens after the first event of a turn of the baseline:
        of the same turn where turns are in pairs, else drawn among those with the same turn number."""
        base = pd.concat(self.b, ignore_index=True)
        found = []
        for rows in self.a:
            pace = floats(rows["tpot_ms"])
            usual = float(np.nanmedian(pace)) if not np.isnan(pace).all() else 0.0
            if self.paired:
                later = floats(self.b[0]["later_tokens"])
            else:
                later = _drawn_lengths(base, rows["turn"].to_numpy())
            times = floats(rows["ttft_ms"]) + np.nan_to_num(later) * np.where(np.isnan(pace), usual, pace)
            times[is_censored(rows)] = inf
            found.append(times)
        return found

    def tokens(self) -> tuple[float, float]:
        """Mean output tokens of an answer, of A and of B."""
        a, b = (pd.concat(side) for side in (self.a, self.b))
        means = (rows["tokens"][~is_censored(rows)].mean() for rows in (a, b))
        a_mean, b_mean = (float(mean) if mean == mean else 0.0 for mean in means)
        return a_mean, b_mean


def matched(a: list[pd.DataFrame], b: list[pd.DataFrame]) -> Waits:
    """The turns of a cell that can be held against each other.

    Runs of one seed and scenario play the same conversations, but a faster server gets further in them: only
    turns that every run has are kept, in pairs. Where replies change the prompts of later turns, those
    conversations are kept whose first turns (in this cell) every run has, and their turns are no pairs. Where
    this would leave under half of the turns or under 20 conversations, all turns are kept.
    """
    runs = [*a, *b]
    plans = {str(plan) for rows in runs for plan in rows["plan"].unique()}
    apart = Waits(a, b, paired=False)
    if len(plans) != 1 or plans == {""}:
        return apart
    keyed = [rows.set_index(["conversation", "turn"], drop=False).sort_index() for rows in runs]
    if any(rows.index.has_duplicates for rows in keyed):
        return apart
    common = keyed[0].index
    for rows in keyed[1:]:
        common = common.intersection(rows.index)
    pairs = [rows.loc[common] for rows in keyed]
    if _same_prompts(pairs):
        kept, paired = pairs, True
    else:
        firsts = [set(rows.index.get_level_values(0)) for rows in keyed]
        kept = [rows[rows["conversation"].isin(set.intersection(*firsts))] for rows in keyed]
        paired = False
    enough = all(
        len(left) >= _LEAST_LEFT * len(rows) and left["conversation"].nunique() >= LEAST_CONVERSATIONS
        for left, rows in zip(kept, runs, strict=True)
    )
    if not enough:
        return apart
    kept = [rows.reset_index(drop=True) for rows in kept]
    return Waits(kept[: len(a)], kept[len(a) :], paired)


def _same_prompts(pairs: list[pd.DataFrame]) -> bool:
    """Whether turns in pairs had prompts of the same length: first turns always, later ones where no real
    reply stands in them."""
    first = pairs[0]
    later = first["turn"].to_numpy() > 1
    if not later.any():
        return True
    same = np.ones(int(later.sum()), dtype=bool)
    for rows in pairs[1:]:
        same &= floats(rows["prompt_tokens"])[later] == floats(first["prompt_tokens"])[later]
    return bool(same.mean() >= _SAME_PROMPTS)


def _drawn_lengths(base: pd.DataFrame, numbers: Ints) -> Floats:
    """For turns with these numbers in their conversations, as many lengths of the baseline's: evenly spaced
    in order of length, so that no draw is lucky, in an order that is shuffled by a fixed seed."""
    rng = np.random.default_rng(0)
    base_numbers, lengths = base["turn"].to_numpy(), floats(base["later_tokens"])
    drawn = np.zeros(len(numbers))
    for number in np.unique(numbers):
        mine = numbers == number
        pool = np.sort(lengths[(base_numbers == number) & ~np.isnan(lengths)])
        if not len(pool):
            pool = np.sort(lengths[~np.isnan(lengths)])
        if len(pool):
            places = (np.arange(mine.sum()) + 0.5) / mine.sum() * len(pool)
            drawn[mine] = rng.permutation(pool[places.astype(np.int64)])
    return drawn


def _side(runs: list[tuple[Floats, Ints]]) -> Side:
    kept = [(values[~np.isnan(values)], talks[~np.isnan(values)]) for values, talks in runs]
    return Side([run for run in kept if len(run[0])])


def _median(values: Floats) -> float:
    with np.errstate(invalid="ignore"):
        return max(float(np.median(values)), 1e-9) if np.isfinite(np.median(values)) else inf
