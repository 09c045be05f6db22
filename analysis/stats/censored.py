"""Means of waits of which some are known only to have been longer: Kaplan-Meier restricted means.

Kaplan and Meier (1958); the restricted mean is the area under their curve up to the longest time that was
watched (Royston and Parmar 2013). Two of them are comparable at one common horizon only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnbench.turns import Bools, Floats


@dataclass(frozen=True)
class RestrictedMean:
    """The mean of min(wait, horizon)."""

    mean: float
    horizon: float
    """The time up to which it is a mean."""
    parts: Floats
    """What each turn says of it: the mean of these is the mean, and their spread is its error."""


def restricted_mean(times: Floats, ended: Bools, horizon: float | None = None) -> RestrictedMean:
    """The restricted mean of these waits; where not `ended`, a wait was at least its time.

    `horizon`: by default the longest time. Without censored waits this is the arithmetic mean.
    """
    if horizon is None:
        horizon = float(times.max())
    else:
        ended = ended | (times >= horizon)
        times = np.minimum(times, horizon)
    order = np.lexsort((~ended, times))  # of equal times, those that ended come first
    t, event, n = times[order], ended[order], len(times)
    at_risk = (n - np.arange(n)).astype(np.float64)
    alive = np.cumprod(np.where(event, 1 - 1 / at_risk, 1.0))
    steps = alive * np.diff(t, append=horizon)
    left = np.cumsum(steps[::-1])[::-1]  # area from each time to the horizon
    mean = float(t[0] + left[0])
    # Leaving one turn out changes the mean by A dN / (Y - 1) less the sum of A dN / (Y (Y - 1)) up to its
    # time, with A the area that is left and Y the turns at risk; without censoring the parts are the times.
    past = np.cumsum(np.where(event, left / np.maximum(at_risk * (at_risk - 1), 1), 0.0))
    parts = np.empty(n)
    parts[order] = n * (past - np.where(event, left / np.maximum(at_risk - 1, 1), 0.0))
    return RestrictedMean(mean, horizon, parts - parts.mean() + mean)
