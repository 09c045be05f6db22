"""Percentiles of pooled raw turns, and from how many turns each one may be told."""

from __future__ import annotations

import numpy as np

from turnbench.turns import Bools, Floats, Ints

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
LEAST_N = {"p50": 11, "p90": 64, "p95": 130, "p99": 662}
"""MLPerf's early-stopping rule at 99 % confidence with one excess allowed, in effective turns."""


def allowed(effective: float) -> list[str]:
    """The percentiles that this many effective turns may tell."""
    return [name for name, least in LEAST_N.items() if effective >= least]


def percentile(values: Floats, quantile: float) -> float | None:
    """The quantile by linear interpolation; None where it falls among infinite (unfinished) values."""
    if not len(values):
        return None
    place = (len(values) - 1) * quantile
    low = int(np.floor(place))
    high = min(low + 1, len(values) - 1)
    part = np.partition(values, (low, high))
    below, above, share = part[low], part[high], place - low
    if not np.isfinite(below) or (share > 0 and not np.isfinite(above)):
        return None
    return float(below if share == 0 else below + (above - below) * share)


def effective_turns(values: Floats, clusters: Ints) -> float:
    """n / (1 + (m - 1) rho): what turns are worth that resemble others of their conversation.

    m: turns a conversation, as a turn sees it (Kish 1965); rho: their intraclass correlation by one-way
    analysis of variance. Infinite values count in n and m only.
    """
    if not len(values):
        return 0.0
    sizes = np.bincount(clusters)
    sizes = sizes[sizes > 0]
    mean_size = float((sizes.astype(float) ** 2).sum() / sizes.sum())
    return len(values) / (1 + (mean_size - 1) * _correlation(values, clusters))


def _correlation(values: Floats, clusters: Ints) -> float:
    finite: Bools = np.isfinite(values)
    values, clusters = values[finite], clusters[finite]
    present = np.bincount(clusters) > 0
    clusters = (np.cumsum(present) - 1)[clusters]
    sizes = np.bincount(clusters)
    n, groups = len(values), len(sizes)
    if n == groups:
        return 0.0  # one turn each: nothing to correlate
    if groups < 2:
        return 1.0  # one conversation says nothing about the next
    means = np.bincount(clusters, weights=values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (groups - 1)
    within = float(((values - means[clusters]) ** 2).sum()) / (n - groups)
    size = (n - float((sizes.astype(float) ** 2).sum()) / n) / (groups - 1)
    spread = between + (size - 1) * within
    if spread <= 1e-18 * max(1.0, float(np.abs(values).max()) ** 2):
        return 0.0  # all values are equal
    return float(np.clip((between - within) / spread, 0.0, 1.0))
