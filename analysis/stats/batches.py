"""95 % intervals over batches of time: what holds where a server's speed drifts for everybody at once.

Conversations that run side by side share a slow minute, so a bootstrap over them says nothing of it. A window
is cut into equal batches by the time at which turns were sent; their ratios are taken for independent where
neighbours are unlike enough. A ratio of sums has its jackknife over batches (Quenouille 1956), a percentile
the share of turns at or under it, read back through the sample's order (Woodruff 1952).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.stats.distributions import t_quantile
from turnbench.turns import Floats, Ints

SLOTS = 20
"""The finest batches; the coarser ones are made of these."""
COUNTS = (20, 10, 5, 4)
MOST_ALIKE = 0.2
"""Correlation of neighbouring batches under which they are taken for independent."""


@dataclass(frozen=True)
class BatchError:
    """How far a ratio of sums may lie from the truth, by batches."""

    ratio: float
    se: float
    batches: int
    alike: bool
    """Whether even the fewest batches resemble their neighbours: then the interval may be too narrow."""

    @property
    def t(self) -> float:
        """Student's t for 95 %."""
        return t_quantile(0.975, self.batches - 1)

    @property
    def ends(self) -> tuple[float, float]:
        return self.ratio - self.t * self.se, self.ratio + self.t * self.se


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
    """The error of sum(above) / sum(below), given by slot; None where one of four batches is empty.

    Of 20, 10, 5 and 4 batches the first whose lag-1 correlation is under 0.2 are taken, else 4.
    """
    found = None
    for count in COUNTS:
        a, b = (part.reshape(count, -1).sum(axis=1) for part in (above, below))
        if (b <= 0).any():
            continue
        found = _jackknife(a, b)
        if not found.alike:
            return found
    return found if found is not None and found.batches == COUNTS[-1] else None


def lag_one(series: Floats) -> float:
    """Correlation of neighbours, a row each (or one series); 0 for a constant."""
    apart = series - series.mean(axis=-1, keepdims=True)
    total = (apart**2).sum(axis=-1)
    pairs = (apart[..., 1:] * apart[..., :-1]).sum(axis=-1)
    return float(pairs / total) if total > 1e-24 * max(1.0, float(np.abs(series).max()) ** 2) else 0.0


def _jackknife(above: Floats, below: Floats) -> BatchError:
    count = len(above)
    ratio = float(above.sum() / below.sum())
    without = (above.sum() - above) / (below.sum() - below)
    pseudo = count * ratio - (count - 1) * without
    se = float(pseudo.std(ddof=1) / np.sqrt(count))
    return BatchError(ratio, se, count, lag_one(above / below) >= MOST_ALIKE)


def wider(one: list[float | None] | None, other: list[float | None] | None) -> list[float | None] | None:
    """The wider of two intervals; an end that is not known is infinitely far."""
    if one is None or other is None:
        return other if one is None else one
    widths = [
        (np.inf if high is None else high) - (-np.inf if low is None else low) for low, high in (one, other)
    ]
    return one if widths[0] >= widths[1] else other
