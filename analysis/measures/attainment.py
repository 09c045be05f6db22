"""Attainment curves: the share of a cell's turns within a limit, for every limit.

Of all measured turns, a failed one is within no limit. One that still ran when it was last seen is outside
every limit that it had outlived; whether it would have been within longer ones is not known: the curve counts
it as outside, the upper end of the band as inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.measures.censored import is_censored, values_of
from analysis.turns.frame import floats
from turnbench.metrics import METRICS
from turnbench.outcomes import ANSWERED, CENSORED
from turnbench.stats.batches import slots_of
from turnbench.stats.intervals import share_interval

_MOST_POINTS = 101
_MOST_BAND_POINTS = 25


@dataclass(frozen=True)
class Attainment:
    """A curve that rises at each of its limits, and its 95 % band at some of them."""

    limits_ms: list[float]
    within: list[float]
    """Share of all turns that are known to be within each limit."""
    band_ms: list[float]
    """Limits at which the band has ends; empty where too little is known."""
    low: list[float]
    high: list[float]


def attainment(rows: pd.DataFrame, key: str) -> Attainment:
    """The curve of one metric over measured turns, failed ones too."""
    values, so_far_ms = values_of(rows, is_censored(rows), METRICS[key])
    censored = rows["outcome"].isin(CENSORED).to_numpy()
    values[~(rows["outcome"].isin(ANSWERED).to_numpy() | censored) | np.isnan(values)] = np.inf
    open_ended = censored & np.isinf(values)
    least_ms = np.where(open_ended, np.nan_to_num(so_far_ms), values)  # what each took at least
    ordered = np.sort(values[np.isfinite(values)])
    if not len(ordered):
        return Attainment([], [], [], [], [])
    places = np.unique(np.round(np.linspace(0, len(ordered) - 1, _MOST_POINTS)).astype(int))
    limits_ms, within = ordered[places].tolist(), ((places + 1) / len(rows)).tolist()
    longest_ms = float(least_ms[np.isfinite(least_ms)].max())
    if longest_ms > limits_ms[-1]:  # as far as any turn was watched nothing more came
        limits_ms.append(longest_ms)
        within.append(within[-1])
    at_ms = np.unique([*ordered[places[:: -(-len(places) // (_MOST_BAND_POINTS - 1))]], limits_ms[-1]])
    talks, slots = pd.factorize(rows["talk"])[0], slots_of(floats(rows["position"]))
    ends = [
        (share_interval(values <= limit, talks, slots), share_interval(least_ms <= limit, talks, slots))
        for limit in at_ms
    ]
    known = [
        (float(limit), sure[0], maybe[1])
        for limit, (sure, maybe) in zip(at_ms, ends, strict=True)
        if sure is not None and maybe is not None
    ]
    band = [list(column) for column in zip(*known, strict=True)] or [[], [], []]
    return Attainment(limits_ms, within, *band)
