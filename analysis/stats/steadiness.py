"""Did a series of turns stay what it was? A warm-up that was too short, and a change on the way."""

from __future__ import annotations

import numpy as np

from turnbench.turns import Floats

LEAST_TURNS = 100
_BATCH = 5
_CHANGE_BATCHES = 40
_LEAST_CHANGE = 0.10
"""Change of the mean, as a share, below which a level is steady enough for any comparison."""
_BRIDGE = 2.22
"""A Brownian bridge goes further than this once in 10,000 times: 2 exp(-2 x^2) (Kolmogorov)."""


def settled_after(values: Floats) -> int:
    """How many of the first values belong to the warm-up still; 0 where the series is steady.

    White (1997): the truncation that minimises the standard error of what is left, on means of five.
    A truncation in the latter half is no minimum to trust and counts as "not settled": half the series.
    """
    batches = values[: len(values) // _BATCH * _BATCH].reshape(-1, _BATCH).mean(axis=1)
    if len(batches) < 2:
        return 0
    left = np.arange(len(batches), 0, -1)
    sums, squares = (np.cumsum(part[::-1])[::-1] for part in (batches, batches**2))
    error = (squares - sums**2 / left) / left**2
    return int(np.argmin(error[: max(len(batches) // 2, 1)])) * _BATCH


def too_short(values: Floats) -> tuple[int, float] | None:
    """(turns that belong to the warm-up, how far their mean lies from the rest's, as a share), or None.

    MSER by itself cuts a few turns off pure noise as well, so the part it cuts must differ from the rest
    by over 5 % and by more than chance explains: four standard errors, as the cut was chosen to differ.
    """
    if len(values) < LEAST_TURNS:
        return None
    cut = settled_after(values)
    if cut == 0:
        return None
    early, rest = values[:cut], values[cut:]
    apart = early.mean() - rest.mean()
    error = np.sqrt(rest.var(ddof=1) * (1 / len(early) + 1 / len(rest)))
    share = float(apart / rest.mean()) if rest.mean() > 0 else 0.0
    return (cut, share) if abs(share) > 0.05 and abs(apart) > 4 * error else None


def change_point(values: Floats) -> tuple[int, float] | None:
    """(where, by what share) the mean of a series of logs changes; None for what chance explains."""
    size = len(values) // _CHANGE_BATCHES
    means = values[: size * _CHANGE_BATCHES].reshape(_CHANGE_BATCHES, size).mean(axis=1)
    # The spread of neighbours' differences is not inflated by the change itself (von Neumann 1941).
    spread = float(np.sqrt(np.mean(np.diff(means) ** 2) / 2))
    if spread <= 0:
        return None
    path = np.cumsum(means - means.mean())[:-1]
    batch = int(np.argmax(np.abs(path))) + 1
    change = float(np.exp(means[batch:].mean() - means[:batch].mean()) - 1)
    if abs(path[batch - 1]) / (spread * np.sqrt(_CHANGE_BATCHES)) < _BRIDGE or abs(change) < _LEAST_CHANGE:
        return None
    return batch * size, change
