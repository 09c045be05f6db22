"""95 % intervals by resampling whole conversations, whose turns are not independent of each other.

Percentile intervals: with the numbers of conversations a level has, the bias-corrected kind (BCa) would
need a jackknife for each number and move the ends by less than what the least-n rule already rounds off.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from analysis.arrays import Floats, Ints
from analysis.percentiles import QUANTILES

LEAST_CONVERSATIONS = 20
REPEATS = 1000
_MOST_GROUPS = 250
_MOST_BINS = 640

Interval = list[float | None]
Weights = npt.NDArray[np.float32]


class Resampler:
    """The same resampled conversations for every number of one cell.

    Above 250 conversations, random groups of them are resampled in their place: the groups are as
    independent as conversations are, and the work no longer grows with the length of the run.
    """

    def __init__(self, conversations: int, seed: int = 0) -> None:
        self.groups = max(min(conversations, _MOST_GROUPS), 1)
        self._group = np.random.default_rng(seed).permutation(conversations) % self.groups
        self._weights = _resamples(self.groups, seed)

    def intervals(self, values: Floats, clusters: Ints, quantiles: list[str]) -> dict[str, Interval]:
        """Interval of the mean and of these percentiles; an end that falls among infinite values is None."""
        if _conversations(clusters) < LEAST_CONVERSATIONS:
            return {}
        levels, bins = _binned(values)
        group = self._group[clusters]
        table = np.bincount(group * len(levels) + bins, minlength=self.groups * len(levels))
        counts = self._weights @ table.reshape(self.groups, len(levels)).astype(np.float32)
        reached = np.cumsum(counts, axis=1, dtype=np.float64)
        full = reached[:, -1] > 0
        found = {"mean": _ends(self._means(values, group)[full])}
        for name in quantiles:
            found[name] = _ends(_quantiles(levels, reached[full], QUANTILES[name]))
        return found

    def _means(self, values: Floats, group: Ints) -> Floats:
        if not np.isfinite(values).all():
            return np.full(REPEATS, np.inf)
        sums = np.stack([np.bincount(group, part, self.groups) for part in (values, np.ones(len(values)))])
        total, size = (self._weights @ sums.T.astype(np.float32)).T.astype(np.float64)
        return np.asarray(total / np.maximum(size, 1e-9))


@cache
def _resamples(groups: int, seed: int) -> Weights:
    """How often each of `groups` is drawn in each resample."""
    draws = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), REPEATS)
    return draws.astype(np.float32)


def _conversations(clusters: Ints) -> int:
    return int((np.bincount(clusters) > 0).sum())


def _binned(values: Floats) -> tuple[Floats, Ints]:
    """(levels in rising order, the level of each value): exact up to 640 values, else finer in the tail."""
    if len(values) <= _MOST_BINS:
        return np.unique(values, return_inverse=True)
    shares = np.unique(np.concatenate([np.linspace(0, 1, 260), np.linspace(0.85, 1, 190), _tail()]))
    ordered = np.sort(values)
    edges = np.unique(ordered[np.minimum((shares * len(values)).astype(int), len(values) - 1)])
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 1)
    sizes = np.bincount(bins, minlength=len(edges))
    with np.errstate(invalid="ignore"):
        sums = np.bincount(bins, weights=values, minlength=len(edges))
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), edges), bins


def _tail() -> Floats:
    return np.linspace(0.98, 1, 190)


def _quantiles(levels: Floats, reached: Floats, quantile: float) -> Floats:
    """Each resample's quantile, by the same linear interpolation as the sample's own."""
    place = (reached[:, -1] - 1) * quantile
    low = np.floor(place)
    high = np.minimum(low + 1, reached[:, -1] - 1)
    below, above = (levels[(reached <= rank[:, None]).sum(axis=1)] for rank in (low, high))
    with np.errstate(invalid="ignore"):
        step = np.where(place > low, (above - below) * (place - low), 0.0)
    return np.asarray(np.where(np.isfinite(below), below + step, below))


def _ends(samples: npt.NDArray[np.floating]) -> Interval:
    """The middle 95 % of the resamples."""
    if not len(samples):
        return [None, None]
    low, high = np.quantile(samples, (0.025, 0.975), method="inverted_cdf")
    return [float(end) if np.isfinite(end) else None for end in (low, high)]
