"""Percentiles of pooled raw turns: from how many turns each may be reported, and its interval.

Woodruff (1952): an interval for the share of turns at or under the percentile, read back through the
sample's own order. The share's variance is taken between conversations, as Korn and Graubard (1998) do,
and the interval itself is that of a binomial share by Jeffreys. In `benchmarks/coverage.py` it holds the
truth more often than a bootstrap of conversations does, in the tails above all.
"""

from __future__ import annotations

import numpy as np

from turnbench.stats.batches import batch_error, slot_sums
from turnbench.stats.distributions import beta_quantile, f_quantile, normal_quantile, t_quantile
from turnbench.turns import Bools, Floats, Ints

Ends = tuple[float | None, float | None]
QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p999": 0.999}
LEAST_N = {"p50": 11, "p90": 64, "p95": 130, "p99": 662, "p999": 6636}
"""MLPerf's early-stopping rule at 99 % confidence with one excess allowed, in effective turns."""


_MANY = 100
"""Conversations from which their correlation is known well enough; below, its upper bound counts."""
_BOUND = 0.8


def reportable(ordered: Floats, values: Floats, clusters: Ints, turns: int | None = None) -> list[str]:
    """The percentiles that these turns are enough for, counted in effective turns at each of them.

    `ordered`: the values in rising order; `turns`: how many they are a sample of, if of more.
    """
    if not len(values):
        return []
    more, largest = (turns or len(values)) / len(values), cluster_size(clusters)
    found = []
    for name, least in LEAST_N.items():
        if len(values) * more < least:
            break
        rho = _indicator_correlation(ordered, values, clusters, QUANTILES[name]) if largest > 1 else 0.0
        if len(values) * more / (1 + (largest - 1) * rho) >= least:
            found.append(name)
    return found


def effective_at(values: Floats, clusters: Ints, quantile: float) -> float:
    """n / (1 + (m - 1) rho): what these turns are worth for one percentile.

    m: turns a conversation, as a turn sees it (Kish 1965); rho: how alike the turns of one conversation are
    in being at or under the percentile. A lucky estimate of it would let a percentile through too soon, so
    of fewer than 100 conversations the upper 80 % bound counts (Searle 1971).
    """
    if not len(values):
        return 0.0
    rho = _indicator_correlation(np.sort(values), values, clusters, quantile)
    return len(values) / (1 + (cluster_size(clusters) - 1) * rho)


def cluster_size(clusters: Ints) -> float:
    """Turns a conversation, as a turn sees it: the sum of squares over the sum."""
    sizes = np.bincount(clusters).astype(np.float64)
    return float((sizes**2).sum() / sizes.sum())


def _indicator_correlation(ordered: Floats, values: Floats, clusters: Ints, quantile: float) -> float:
    below = values <= ordered[min(int((len(values) - 1) * quantile), len(values) - 1)]
    return _correlation(below.astype(np.float64), clusters)


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


def _correlation(values: Floats, clusters: Ints) -> float:
    """Intraclass correlation by one-way analysis of variance, of few conversations its upper bound."""
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
    if groups < _MANY:
        between /= f_quantile(1 - _BOUND, groups - 1, n - groups)
    spread = between + (size - 1) * within
    if spread <= 1e-18 * max(1.0, float(np.abs(values).max()) ** 2):
        return 0.0  # all values are equal
    return float(np.clip((between - within) / spread, 0.0, 1.0))


def quantile_ends(
    ordered: Floats, values: Floats, clusters: Ints, quantile: float, confidence: float = 0.95
) -> Ends:
    """Interval of a quantile; `ordered` are the values in rising order. None: the end is not known.

    An end that falls outside the sample or among infinite (unfinished) values is not known.
    """
    below = values <= ordered[min(int((len(values) - 1) * quantile), len(values) - 1)]
    worth = effective_share_turns(below, clusters, quantile, confidence)
    return inverted(ordered, quantile, worth, confidence)


def batch_quantile_ends(ordered: Floats, values: Floats, slots: Ints, quantile: float) -> Ends | None:
    """The 95 % interval of a quantile by time batches; None where they hold too few turns."""
    below = values <= ordered[min(int((len(values) - 1) * quantile), len(values) - 1)]
    error = batch_error(slot_sums(slots, below.astype(np.float64)), slot_sums(slots))
    if error is None:
        return None
    worth = min(quantile * (1 - quantile) / error.se**2, len(values)) if error.se > 0 else float(len(values))
    return inverted(ordered, quantile, worth, 0.95)


def inverted(ordered: Floats, quantile: float, worth: float, confidence: float) -> Ends:
    """The interval of a share known from so many independent turns, read back through the sample's order."""
    tail = (1 - confidence) / 2
    hits = quantile * worth
    shares = (beta_quantile(share, hits + 0.5, worth - hits + 0.5) for share in (tail, 1 - tail))
    low, high = (_quantile_at(ordered, share) for share in shares)
    return low, high


def effective_share_turns(below: Bools, clusters: Ints, quantile: float, confidence: float) -> float:
    """How many independent turns say as much of a share as these turns of conversations do.

    Never more than there are turns: by chance a sample's conversations may look more alike than chance.
    """
    sizes = np.bincount(clusters)
    hits = np.bincount(clusters, below.astype(np.float64), len(sizes))[sizes > 0]
    sizes = sizes[sizes > 0]
    groups, n = len(sizes), len(below)
    if groups < 2:
        return 1.0
    apart = hits - sizes * below.mean()
    variance = float((apart**2).sum()) * groups / (groups - 1) / n**2
    worth = min(quantile * (1 - quantile) / variance, n) if variance > 0 else float(n)
    tail = (1 + confidence) / 2
    return float(worth * (normal_quantile(tail) / t_quantile(tail, groups - 1)) ** 2)


def _quantile_at(ordered: Floats, share: float) -> float | None:
    """The quantile of a sample with plotting positions (i + 1/2) / n."""
    place = share * len(ordered) - 0.5
    if place < 0 or place > len(ordered) - 1:
        return None
    low = int(place)
    below, above, part = float(ordered[low]), float(ordered[min(low + 1, len(ordered) - 1)]), place - low
    if not np.isfinite(below) or (part > 0 and not np.isfinite(above)):
        return None
    return below + (above - below) * part if part > 0 else below
