"""Intervals of percentiles of turns that come in conversations, chosen by their coverage.

Woodruff (1952): an interval for the share of turns at or under the percentile, read back through the
sample's own order. The share's variance is taken between conversations, as Korn and Graubard (1998) do,
and the interval itself is that of a binomial share by Jeffreys. In `benchmarks/coverage.py` it holds the
truth more often than a bootstrap of conversations does, in the tails above all.
"""

from __future__ import annotations

import numpy as np

from analysis.stats.distributions import beta_quantile, normal_quantile, t_quantile
from turnbench.turns import Bools, Floats, Ints

Ends = tuple[float | None, float | None]


def quantile_ends(
    ordered: Floats, values: Floats, clusters: Ints, quantile: float, confidence: float = 0.95
) -> Ends:
    """Interval of a quantile; `ordered` are the values in rising order. None: the end can't be told.

    An end that falls outside the sample or among infinite (unfinished) values can't be told.
    """
    below = values <= ordered[min(int((len(values) - 1) * quantile), len(values) - 1)]
    worth = effective_share_turns(below, clusters, quantile, confidence)
    tail = (1 - confidence) / 2
    hits = quantile * worth
    shares = (beta_quantile(share, hits + 0.5, worth - hits + 0.5) for share in (tail, 1 - tail))
    low, high = (_at(ordered, share) for share in shares)
    return low, high


def effective_share_turns(below: Bools, clusters: Ints, quantile: float, confidence: float) -> float:
    """How many independent turns tell a share as well as these turns of conversations do.

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


def _at(ordered: Floats, share: float) -> float | None:
    """The quantile of a sample with plotting positions (i + 1/2) / n."""
    place = share * len(ordered) - 0.5
    if place < 0 or place > len(ordered) - 1:
        return None
    low = int(place)
    below, above, part = float(ordered[low]), float(ordered[min(low + 1, len(ordered) - 1)]), place - low
    if not np.isfinite(below) or (part > 0 and not np.isfinite(above)):
        return None
    return below + (above - below) * part if part > 0 else below
