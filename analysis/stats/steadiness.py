"""Did a series of turns stay what it was? A warm-up that was too short, and a change on the way.

Neighbouring turns run side by side and resemble each other, so both look at means of batches that are long
enough to be nearly independent; where no batches are, nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnbench.stats.batches import lag_one
from turnbench.stats.distributions import t_quantile
from turnbench.turns import Floats

LEAST_TURNS = 100
_SHORTEST = 5
"""Turns in the shortest batches: MSER-5 (White 1997)."""
_LEAST_BATCHES = 20
_MOST_CORRELATED = 0.2
_LEAST_WARM_UP = 0.02
"""Share by which the first turns move the mean of all, below which no number that matters is another. Five
turns of 230 that take a tenth longer move it by 0.2 %."""
_LEAST_CHANGE = 0.10
"""Change of the mean, as a share, below which a level is steady enough for any comparison."""
_CHANCE = 1e-4
"""Of an alarm in a series of independent batches, for each of which the cut was chosen."""


def batch_length(values: Floats) -> int | None:
    """The fewest turns in a batch, from five on, whose means resemble their neighbours' little; None where no
    20 such batches fit in.

    The correlation is read from the steps between neighbours, which a change of the level hardly moves.
    """
    length = _SHORTEST
    while len(values) // length >= _LEAST_BATCHES:
        means = batch_means(values, length)
        steps = np.diff(means)  # of independent batches neighbouring steps correlate by -1/2
        most = 3 * 1.4826 * float(np.median(np.abs(steps)))  # three sigmas: a jump is no noise
        steps = np.clip(steps, -most, most)
        if 2 * lag_one(steps) + 1 < _MOST_CORRELATED:
            return length
        length *= 2
    return None


def batch_means(values: Floats, length: int) -> Floats:
    """Means of so many turns each; what is left over at the end belongs to none."""
    return np.asarray(values[: len(values) // length * length].reshape(-1, length).mean(axis=1))


def settled_after(values: Floats, length: int = _SHORTEST) -> int:
    """How many of the first values belong to the warm-up still; 0 where the series is steady.

    White (1997): the truncation that minimises the standard error of what is left, on means of batches.
    A truncation in the latter half is no minimum to trust and counts as "not settled": half the series.
    """
    batches = batch_means(values, length)
    if len(batches) < 2:
        return 0
    left = np.arange(len(batches), 0, -1)
    sums, squares = (np.cumsum(part[::-1])[::-1] for part in (batches, batches**2))
    error = (squares - sums**2 / left) / left**2
    return int(np.argmin(error[: max(len(batches) // 2, 1)])) * length


def too_short(values: Floats) -> tuple[int, float] | None:
    """(turns that belong to the warm-up, how far their mean lies from the rest's, as a share), or None.

    MSER by itself cuts a few turns off pure noise as well, so the part it cuts must move the mean of all
    turns by over 2 %, and differ from the rest by more than chance explains, as the cut was chosen to differ.
    """
    length = batch_length(values) if len(values) >= LEAST_TURNS else None
    if length is None:
        return None
    batches, cut = batch_means(values, length), settled_after(values, length) // length
    if cut == 0:
        return None
    early, rest = batches[:cut], batches[cut:]
    apart = early.mean() - rest.mean()
    error = rest.std(ddof=1) * np.sqrt(1 / len(early) + 1 / len(rest))
    share = float(apart / rest.mean()) if rest.mean() > 0 else 0.0
    sure = abs(apart) > t_quantile(1 - _CHANCE / 2, len(rest) - 1) * error
    moved = share * cut / len(batches)
    return (cut * length, share) if abs(moved) > _LEAST_WARM_UP and sure else None


@dataclass(frozen=True)
class Change:
    """A series of logs whose mean changes."""

    start: int
    """Index of the first value after it."""
    share: float
    """By what share, on average from there on."""
    stayed: bool
    """Whether each third of what follows is still changed by half of that or more."""


def change_point(values: Floats) -> Change | None:
    """Where and by what share the mean of a series of logs changes; None for what chance explains."""
    length = batch_length(values)
    if length is None:
        return None
    means = batch_means(values, length)
    count = len(means)
    cuts = np.arange(2, count - 1)
    total = np.cumsum(means)
    before, after = total[cuts - 1] / cuts, (total[-1] - total[cuts - 1]) / (count - cuts)
    squares = (means**2).sum() - cuts * before**2 - (count - cuts) * after**2
    error = np.sqrt(np.maximum(squares, 0) / (count - 2) * (1 / cuts + 1 / (count - cuts)))
    t = np.abs(after - before) / np.maximum(error, 1e-300)
    best = int(np.argmax(t))
    cut, change = int(cuts[best]), float(np.exp(after[best] - before[best]) - 1)
    # Some of so many cuts go far by chance (Bonferroni).
    if t[best] < t_quantile(1 - _CHANCE * 10 / len(cuts) / 2, count - 2) or abs(change) < _LEAST_CHANGE:
        return None
    step = after[best] - before[best]
    thirds = np.array_split(values[cut * length :], 3)
    stayed = all((np.median(part) - before[best]) / step > 0.5 for part in thirds)
    return Change(cut * length, change, stayed)
