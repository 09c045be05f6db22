"""The distribution of one metric over the turns of a cell: mean, percentiles and their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.stats.bootstrap import Resampler
from analysis.stats.percentiles import QUANTILES, allowed, effective_turns, percentile
from analysis.turns.study import Study
from turnbench.formats import Distribution
from turnbench.turns import Floats, Ints

MOST_COALESCED = 0.01
"""Share of events that arrived in one read with an earlier one, up to which gaps have percentiles."""
_MOST_GAPS = 100_000


def distribution(
    values: Floats, clusters: Ints, resampler: Resampler, n: int | None = None, mean: float | None = None
) -> Distribution:
    """What these values say; None where a number has too few of them.

    `clusters`: the conversation of each value. Where the values are a sample of more, `n` and `mean` are of
    all of them.
    """
    if n is None:
        n = len(values)
        mean = float(values.mean()) if len(values) and np.isfinite(values).all() else None
    # The design effect of a sample is that of all.
    effective = effective_turns(values, clusters) * n / max(len(values), 1)
    names = allowed(effective) if len(values) else []
    found = {name: percentile(values, QUANTILES[name]) if name in names else None for name in QUANTILES}
    names = [name for name in names if found[name] is not None]
    intervals = resampler.intervals(values, clusters, names) if len(values) else {}
    ends = {name: intervals.get(name) for name in ("mean", *QUANTILES)}
    if mean is None:
        ends["mean"] = None
    return Distribution(n, mean, **found, ci95=ends)


def gap_distribution(
    study: Study, rows: pd.DataFrame, clusters: Ints, resampler: Resampler, percentiles: bool
) -> Distribution:
    """The distribution of gaps between neighbouring events of these turns, never across two of them.

    Of more than 100,000 gaps so many are taken at random: that moves a percentile's rank by 0.16 % at most
    (one standard error), and time and memory no longer grow with the run. `n` and `mean` are of all of them.
    `clusters`: one for each turn. Without `percentiles` only n and mean are given: too many events came in
    one read with another for the gaps to be the server's.
    """
    events, turns = study.events, rows.index.to_numpy()
    starts, counts = events.offsets[turns], np.maximum(events.counts[turns] - 1, 0)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        return distribution(np.zeros(0), np.zeros(0, dtype=np.int64), resampler)
    sampled = total > _MOST_GAPS
    chosen = np.random.default_rng(0).integers(0, total, _MOST_GAPS) if sampled else np.arange(total)
    turn = np.searchsorted(ends, chosen, side="right")
    gaps_ms = events.gaps_ms(starts[turn] + 1 + chosen - (ends - counts)[turn])
    long = counts > 0
    spans_us = events.at_us[(starts + counts)[long]].astype(np.float64) - events.at_us[starts[long]]
    shown = len(gaps_ms) if percentiles else 0
    mean_ms = float(spans_us.sum()) / total / 1e3
    return distribution(gaps_ms[:shown], clusters[turn][:shown], resampler, total, mean_ms)


def coalesced_share(rows: pd.DataFrame, study: Study) -> float:
    """Share of content events that shared a read with an earlier one, of all turns in these rows."""
    events = int(study.events.counts[rows.index.to_numpy()].sum())
    return float(rows["coalesced"].sum()) / events if events else 0.0
