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
from turnbench.outcomes import ANSWERED
from turnbench.stats.batches import batch_error, slot_sums, slots_of
from turnbench.stats.bootstrap import LEAST_CONVERSATIONS, conversations_in
from turnbench.stats.distributions import beta_quantile, normal_quantile
from turnbench.stats.percentiles import effective_share_turns
from turnbench.turns import Bools, Ints

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
    answered = rows["outcome"].isin(ANSWERED).to_numpy()
    censored = is_censored(rows)
    values, so_far_ms = values_of(rows, METRICS[key], censored)
    values[~(answered | censored) | np.isnan(values)] = np.inf
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
        (_share_ends(values <= limit, talks, slots), _share_ends(least_ms <= limit, talks, slots))
        for limit in at_ms
    ]
    known = [
        (float(limit), sure[0], maybe[1])
        for limit, (sure, maybe) in zip(at_ms, ends, strict=True)
        if sure is not None and maybe is not None
    ]
    band = [list(column) for column in zip(*known, strict=True)] or [[], [], []]
    return Attainment(limits_ms, within, *band)


def _share_ends(within: Bools, talks: Ints, slots: Ints) -> tuple[float, float] | None:
    """The 95 % interval of a share of turns (Jeffreys), from as many independent turns as these are worth.

    The fewer of two, by conversations and by batches of time; under 20 conversations by batches alone.
    """
    share, conversations = float(within.mean()), conversations_in(talks)
    worths = []
    if conversations >= LEAST_CONVERSATIONS:
        worths.append(effective_share_turns(within, talks, share, 0.95))
    error = batch_error(slot_sums(slots, within.astype(np.float64)), slot_sums(slots))
    if error is not None:
        by_batches = share * (1 - share) / error.se**2 if error.se > 0 else float(len(within))
        worths.append(min(by_batches, len(within)) * (normal_quantile(0.975) / error.t) ** 2)
    if not worths:
        return None
    # Turns that are all alike say nothing of how alike those of one conversation are.
    worth = min(worths) if 0 < share < 1 else float(conversations)
    hits = share * worth
    ends = [beta_quantile(tail, hits + 0.5, worth - hits + 0.5) for tail in (0.025, 0.975)]
    return min(ends[0], share), max(ends[1], share)
