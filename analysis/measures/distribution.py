"""The distribution of one metric over the turns of a cell: mean, percentiles and their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.stats.censored import restricted_mean
from analysis.turns.study import Study
from turnbench.formats import Distribution
from turnbench.stats.batches import SLOTS
from turnbench.stats.bootstrap import Interval, Resampler
from turnbench.stats.intervals import quantile_interval, ratio_interval
from turnbench.stats.percentiles import QUANTILES, percentile, reportable
from turnbench.turns import Bools, Floats, Ints

MOST_COALESCED = 0.01
"""Share of events that arrived in one read with an earlier one, up to which gaps have percentiles."""
_MOST_GAPS = 100_000


@dataclass(frozen=True)
class Sample:
    """Values of one metric, one a turn (or gap), without those that have none.

    A turn that never ended has an infinite value: minus infinity where higher is better.
    """

    values: Floats
    clusters: Ints
    """The conversation of each."""
    slots: Ints | None = None
    """Where in the window each was sent, see `slots_of`; None: not known."""
    so_far: Floats | None = None
    """Of an infinite value: what it was when last seen. NaN or None: nothing is known."""


def distribution(
    sample: Sample, resampler: Resampler, n: int | None = None, mean: float | None = None
) -> Distribution:
    """What these values say; None where a number has too few of them.

    Where the values are a sample of more, `n` and `mean` are of all of them.
    """
    values, clusters = sample.values, sample.clusters
    ended = np.isfinite(values)
    parts, mean_to = values, None
    if n is None:
        n = len(values)
        if ended.all():
            mean = float(values.mean()) if n else None
        elif (values[~ended] > 0).all():  # of waits; of rates that may have been lower there is no such mean
            times = np.where(ended, values, _known(sample, 0.0))
            if ended.any():
                found = restricted_mean(times, ended)
                mean, mean_to, parts = found.mean, found.horizon, found.parts
    ordered = np.sort(values)
    names = reportable(ordered, values, clusters, n)
    numbers = {name: percentile(values, QUANTILES[name]) if name in names else None for name in QUANTILES}
    most = float(values.max()) if n and len(values) and ended.all() else None
    ends: dict[str, Interval | None] = dict.fromkeys(("mean", *QUANTILES))
    if len(values):
        known = [name for name in names if numbers[name] is not None]
        ends |= intervals(Sample(parts, clusters, sample.slots), values, ordered, known, resampler)
    if mean is None:
        ends["mean"] = None
    return Distribution(
        n, mean, **numbers, max=most, mean_to=mean_to, bound=_bounds(sample, numbers, names), ci95=ends
    )


def intervals(
    parts: Sample, values: Floats, ordered: Floats, names: list[str], resampler: Resampler
) -> dict[str, Interval | None]:
    """95 % intervals of the mean of `parts` and of these percentiles of `values`: the wider of that over
    conversations and that over batches of time; the latter alone below 20 conversations."""
    clusters, slots = parts.clusters, parts.slots
    found: dict[str, Interval | None] = {
        name: quantile_interval(ordered, values, clusters, slots, QUANTILES[name]) for name in names
    }
    if np.isfinite(parts.values).all():
        ones = np.ones(len(parts.values))
        found["mean"] = ratio_interval(parts.values, ones, clusters, slots, resampler)
    return found


@dataclass(frozen=True)
class TurnSums:
    """Turns whose sums are divided: their conversations and slots."""

    clusters: Ints
    slots: Ints | None
    """Where in the window each was sent; None: not known."""
    resampler: Resampler

    def ends(self, above: Floats, below: Floats | Bools) -> Interval | None:
        """95 % interval of the sum of one over that of the other."""
        above, below = np.nan_to_num(above), np.nan_to_num(below.astype(np.float64))
        return ratio_interval(above, below, self.clusters, self.slots, self.resampler)

    def per_second(self, above: Floats, window_s: float) -> Interval | None:
        """The same of a count per second of the window."""
        if window_s <= 0 or not len(above):
            return None
        share, by_slot = np.full(len(above), window_s / len(above)), np.full(SLOTS, window_s / SLOTS)
        return ratio_interval(above, share, self.clusters, self.slots, self.resampler, by_slot)


def _known(sample: Sample, default: float) -> Floats:
    """The values, and of turns that never ended what is known of them."""
    so_far = np.full(len(sample.values), np.nan) if sample.so_far is None else sample.so_far
    return np.where(np.isfinite(sample.values), sample.values, np.nan_to_num(so_far, nan=default))


def _bounds(sample: Sample, numbers: dict[str, float | None], names: list[str]) -> dict[str, float]:
    """Percentiles and maximum with turns that never ended at what was seen of them."""
    values = sample.values
    if not len(values) or np.isfinite(values).all():
        return {}
    if sample.so_far is None or (np.isnan(sample.so_far) & (values < 0)).any():
        return {}  # a rate that may have been anything
    known = _known(sample, 0.0)
    found = {name: percentile(known, QUANTILES[name]) for name in names if numbers[name] is None}
    return {name: value for name, value in found.items() if value is not None} | {"max": float(known.max())}


def gap_distribution(
    study: Study, rows: pd.DataFrame, turns: Sample, resampler: Resampler, percentiles: bool
) -> Distribution:
    """The distribution of gaps between neighbouring events of these turns, never across two of them.

    Of more than 100,000 gaps so many are taken at random: that moves a percentile's rank by 0.16 % at most
    (one standard error), and time and memory no longer grow with the run. `n` and `mean` are of all of them.
    `turns`: conversation and slot of each. Without `percentiles` only n and mean are given: too many events
    came in one read with another for the gaps to be the server's.
    """
    events, places = study.events, rows.index.to_numpy()
    starts, counts = events.offsets[places], np.maximum(events.counts[places] - 1, 0)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        return distribution(Sample(np.zeros(0), np.zeros(0, dtype=np.int64)), resampler)
    sampled = total > _MOST_GAPS
    chosen = np.random.default_rng(0).integers(0, total, _MOST_GAPS) if sampled else np.arange(total)
    turn = np.searchsorted(ends, chosen, side="right")
    gaps_ms = events.gaps_ms(starts[turn] + 1 + chosen - (ends - counts)[turn])
    long = counts > 0
    spans_us = events.at_us[(starts + counts)[long]].astype(np.float64) - events.at_us[starts[long]]
    shown = len(gaps_ms) if percentiles else 0
    mean_ms = float(spans_us.sum()) / total / 1e3
    slots = None if turns.slots is None else turns.slots[turn][:shown]
    gaps = Sample(gaps_ms[:shown], turns.clusters[turn][:shown], slots)
    found = distribution(gaps, resampler, total, mean_ms)
    if sampled:
        found.max = None  # of a sample
    return found


def coalesced_share(rows: pd.DataFrame, study: Study) -> float:
    """Share of content events that shared a read with an earlier one, of all turns in these rows."""
    events = int(study.events.counts[rows.index.to_numpy()].sum())
    return float(rows["coalesced"].sum()) / events if events else 0.0
