"""95 % intervals over batches of time: what holds where a server's speed drifts for everybody at once.

Conversations that run side by side share a slow minute, so a bootstrap over them says nothing of it. A window
is cut into equal batches by the time at which turns were sent. A ratio of sums has its jackknife over batches
(Quenouille 1956), a percentile the share of turns at or under it, read back through the sample's order
(Woodruff 1952).

What neighbouring batches have in common makes their mean less sure than as many independent ones. From 20
batches it can be estimated, but badly, so no one estimate of it is taken for the truth: the batches are taken
for noise around a constant, or around a speed that wanders (an Ornstein-Uhlenbeck process) slowly or quickly,
by little or by much, each as probable as the batches make it (Bayesian model averaging: Hoeting et al. 1999;
the weights are those of Gaussian processes: Rasmussen and Williams 2006, chapter 5). Before the batches are
seen, a constant has three quarters. `python -m benchmarks.coverage` shows what these intervals hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from turnbench.stats.distributions import normal_quantile
from turnbench.turns import Bools, Floats, Ints

SLOTS = 20
"""The finest batches; the coarser ones are made of these."""
_COUNTS = (20, 10, 5, 4)
_STEADY = 0.75
"""Probability, before the batches are seen, that nothing wanders."""
_TIMES = (0.05, 0.1, 0.2, 0.4)
"""Correlation times of a speed that wanders, as shares of the window."""
_LONG = 0.2
"""From this one on the window shows too little of how the speed wanders."""
_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Its variance, as a multiple of that of a batch's own noise."""


@dataclass(frozen=True)
class BatchError:
    """How far a ratio of sums may lie from the truth, by batches."""

    ratio: float
    half_width: float
    """Of its 95 % interval."""
    slow: bool
    """Whether it probably wanders so slowly that the window shows too little of it."""

    @property
    def se(self) -> float:
        """The standard error of a normal estimate with this interval."""
        return self.half_width / normal_quantile(0.975)

    @property
    def ends(self) -> tuple[float, float]:
        return self.ratio - self.half_width, self.ratio + self.half_width


def slots_of(position: Floats) -> Ints:
    """The slot of each turn by its position in the window, 0 to 1; -1 where it lies outside or has none."""
    inside = (position >= 0) & (position < 1)
    return np.where(inside, np.nan_to_num(position) * SLOTS, -1).astype(np.int64)


def slot_sums(slots: Ints, values: Floats | None = None) -> Floats:
    """The sum of the values in each slot, or their count."""
    inside = slots >= 0
    weights = None if values is None else values[inside]
    return np.bincount(slots[inside], weights, SLOTS).astype(np.float64)


def batch_error(above: Floats, below: Floats) -> BatchError | None:
    """The error of sum(above) / sum(below), given by slot; None where a quarter of the window is empty.

    By the most batches of which half or more hold something: 20, 10, 5 or 4.
    """
    if (below.reshape(4, -1).sum(axis=1) <= 0).any():
        return None
    for count in _COUNTS:
        a, b = (part.reshape(count, -1).sum(axis=1) for part in (above, below))
        if (b > 0).mean() >= 0.5:
            break
    return _averaged(a, b)


def lag_one(series: Floats) -> float:
    """Correlation of neighbours, a row each (or one series); 0 for a constant."""
    apart = series - series.mean(axis=-1, keepdims=True)
    total = (apart**2).sum(axis=-1)
    pairs = (apart[..., 1:] * apart[..., :-1]).sum(axis=-1)
    return float(pairs / total) if total > 1e-24 * max(1.0, float(np.abs(series).max()) ** 2) else 0.0


def _averaged(above: Floats, below: Floats) -> BatchError:
    """The interval of the mean of the jackknife's pseudo-values, over all models of how they depend."""
    count, models = len(above), _models(len(above))
    ratio = float(above.sum() / below.sum())
    without = (above.sum() - above) / (below.sum() - below)
    pseudo = count * ratio - (count - 1) * without
    squares = ((models.forms @ pseudo) * pseudo).sum(axis=1)
    if squares.min() <= 1e-24 * count * float((pseudo**2).max()):
        return BatchError(ratio, 0.0, slow=False)  # all batches are equal
    logs = models.log_prior - (count - 1) / 2 * np.log(squares)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    scales = np.sqrt(squares / (count - 1) / models.precision)
    low, high = 0.0, 100 * float(scales.max())
    for _ in range(24):
        middle = (low + high) / 2
        outside = float(weights @ special.stdtr(count - 1, -middle / scales))
        low, high = (middle, high) if outside > 0.025 else (low, middle)
    return BatchError(ratio, high, slow=bool(weights[models.long].sum() > 0.5))


@dataclass(frozen=True)
class _Models:
    """Ways in which batches may depend on each other, one a row."""

    log_prior: Floats
    """With all of the likelihood that does not depend on the batches."""
    forms: Floats
    """x' F x is the weighted sum of squares of batches x around their mean."""
    precision: Floats
    """Of the mean, where a batch's own noise has a variance of 1."""
    long: Bools
    """Whether the correlation time is long for the window."""


@lru_cache(maxsize=8)
def _models(count: int) -> _Models:
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count))) / count
    covariances, priors, long = [np.eye(count)], [_STEADY], [False]
    for time in _TIMES:
        step = 1 / count / time
        alike = np.exp(-apart / time) * (np.exp(step) + np.exp(-step) - 2) / step**2  # of means over batches
        np.fill_diagonal(alike, 2 * (step - 1 + np.exp(-step)) / step**2)
        for strength in _STRENGTHS:
            covariances.append(np.eye(count) + strength * alike)
            priors.append((1 - _STEADY) / len(_TIMES) / len(_STRENGTHS))
            long.append(time >= _LONG)
    inverses = np.linalg.inv(np.stack(covariances))
    sums = inverses.sum(axis=1)
    precision = sums.sum(axis=1)
    forms = inverses - sums[:, :, None] * sums[:, None, :] / precision[:, None, None]
    constant = -np.linalg.slogdet(np.stack(covariances))[1] / 2 - np.log(precision) / 2
    return _Models(np.log(priors) + constant, forms, precision, np.array(long))


def wider(one: list[float | None] | None, other: list[float | None] | None) -> list[float | None] | None:
    """The wider of two intervals; an end that is not known is infinitely far."""
    if one is None or other is None:
        return other if one is None else one
    widths = [
        (np.inf if high is None else high) - (-np.inf if low is None else low) for low, high in (one, other)
    ]
    return one if widths[0] >= widths[1] else other
