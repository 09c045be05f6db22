"""95 % intervals over whole conversations, whose turns are not independent of each other.

Means and ratios of sums: bootstrap of conversations, widened as Student's t is over the normal (Hesterberg
2015, the expanded percentile interval). Percentiles: see percentiles.py, whose interval covers better there.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from turnbench.stats.distributions import normal_cdf, t_quantile
from turnbench.stats.percentiles import QUANTILES, quantile_ends
from turnbench.turns import Floats, Ints

LEAST_CONVERSATIONS = 20
REPEATS = 1000
_MOST_GROUPS = 250

Interval = list[float | None]
Weights = npt.NDArray[np.float32]


class Resampler:
    """The same resampled conversations for every number of one cell.

    Above 250 conversations, random groups of them are resampled in their place: the groups are as
    independent as conversations are, and the work no longer grows with the length of the run.
    """

    def __init__(self, conversations: int, seed: int = 0) -> None:
        self.groups = max(min(conversations, _MOST_GROUPS), 1)
        self.group: Ints = np.random.default_rng(seed).permutation(conversations) % self.groups
        self._weights = _resamples(self.groups, seed)

    def intervals(
        self,
        values: Floats,
        clusters: Ints,
        quantiles: list[str],
        parts: Floats | None = None,
        ordered: Floats | None = None,
    ) -> dict[str, Interval]:
        """Interval of the mean and of these percentiles; an end that falls among infinite values is None.

        `parts`: what the mean is of, if not of the values; `ordered`: the values in rising order.
        """
        if conversations_in(clusters) < LEAST_CONVERSATIONS:
            return {}
        parts = values if parts is None else parts
        mean: Interval = [None, None]
        if np.isfinite(parts).all():
            mean = self.ratio_ends(parts, np.ones(len(parts)), clusters)
        found = {"mean": mean}
        ordered = np.sort(values) if ordered is None and quantiles else ordered
        for name in quantiles:
            assert ordered is not None
            found[name] = list(quantile_ends(ordered, values, clusters, QUANTILES[name]))
        return found

    def ratio_ends(self, above: Floats, below: Floats, clusters: Ints) -> Interval:
        """Interval of the sum of `above` over the sum of `below`."""
        over, under = self.sums(np.stack([above, below], axis=1), clusters).T
        return self.ends(np.divide(over, under, out=np.full(len(over), np.nan), where=under > 0))

    def sums(self, columns: Floats, clusters: Ints) -> Floats:
        """Sums of each column over the turns of each resample: one row a resample."""
        group = self.group[clusters]
        parts = [np.bincount(group, column, self.groups) for column in columns.T]
        return np.asarray(self._weights.astype(np.float64) @ np.stack(parts, axis=1))

    def ends(self, samples: Floats) -> Interval:
        """The middle 95 % of finite resamples, widened for the number of conversations."""
        samples = samples[np.isfinite(samples)]
        if not len(samples):
            return [None, None]
        tail = _expanded_tail(self.groups)
        return [float(end) for end in np.quantile(samples, (tail, 1 - tail))]


def conversations_in(clusters: Ints) -> int:
    """How many conversations these turns come from."""
    return int((np.bincount(clusters) > 0).sum()) if len(clusters) else 0


@lru_cache(maxsize=16)
def _expanded_tail(groups: int) -> float:
    wide = t_quantile(0.975, max(groups - 1, 1)) * np.sqrt(groups / max(groups - 1, 1))
    return normal_cdf(-wide)


@lru_cache(maxsize=64)
def _resamples(groups: int, seed: int) -> Weights:
    """How often each of `groups` is drawn in each resample."""
    draws = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), REPEATS)
    return draws.astype(np.float32)
