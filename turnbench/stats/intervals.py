"""The 95 % interval that every number has: the wider of one over conversations and one over batches of time.

Under 20 conversations it is over batches alone. The analysis and --until both ask here, so that a level which
ended because its number was known well enough is reported to be just that.
"""

from __future__ import annotations

import numpy as np

from turnbench.stats.batches import batch_error, slot_sums, wider
from turnbench.stats.bootstrap import LEAST_CONVERSATIONS, Interval, Resampler, conversations_in
from turnbench.stats.distributions import beta_quantile
from turnbench.stats.percentiles import batch_quantile_ends, effective_share_turns, quantile_ends
from turnbench.turns import Bools, Floats, Ints


def quantile_interval(
    ordered: Floats, values: Floats, clusters: Ints, slots: Ints | None, quantile: float
) -> Interval | None:
    """Of a quantile of these values; an end among infinite ones is None.

    `ordered`: the values in rising order; `slots`: where in the window each was sent, None if not known.
    """
    talks = ends = None
    if conversations_in(clusters) >= LEAST_CONVERSATIONS:
        talks = list(quantile_ends(ordered, values, clusters, quantile))
    if slots is not None:
        found = batch_quantile_ends(ordered, values, slots, quantile)
        ends = None if found is None else list(found)
    return wider(talks, ends)


def ratio_interval(
    above: Floats,
    below: Floats,
    clusters: Ints,
    slots: Ints | None,
    resampler: Resampler,
    below_by_slot: Floats | None = None,
) -> Interval | None:
    """Of the sum of one over that of the other; never below 0.

    `below_by_slot`: the sum of what stands below in each slot, where that is not the sum of its turns.
    """
    talks = error = None
    if conversations_in(clusters) >= LEAST_CONVERSATIONS:
        talks = resampler.ratio_ends(above, below, clusters)
    if slots is not None:
        under = slot_sums(slots, below) if below_by_slot is None else below_by_slot
        error = batch_error(slot_sums(slots, above), under)
    found = wider(talks, None if error is None else list(error.ends))
    return found and [None if end is None else max(end, 0.0) for end in found]


def share_interval(within: Bools, clusters: Ints, slots: Ints) -> tuple[float, float] | None:
    """The 95 % interval of a share of turns (Jeffreys), from as many independent turns as these are worth.

    The fewer of two, by conversations and by batches of time; under 20 conversations by batches alone.
    """
    share, conversations = float(within.mean()), conversations_in(clusters)
    worths = []
    if conversations >= LEAST_CONVERSATIONS:
        worths.append(effective_share_turns(within, clusters, share, 0.95))
    error = batch_error(slot_sums(slots, within.astype(np.float64)), slot_sums(slots))
    if error is not None:
        by_batches = share * (1 - share) / error.se**2 if error.se > 0 else float(len(within))
        worths.append(min(by_batches, float(len(within))))
    if not worths:
        return None
    # Turns that are all alike say nothing of how alike those of one conversation are.
    worth = min(worths) if 0 < share < 1 else float(conversations)
    hits = share * worth
    ends = [beta_quantile(tail, hits + 0.5, worth - hits + 0.5) for tail in (0.025, 0.975)]
    return min(ends[0], share), max(ends[1], share)


def furthest_share(number: float | None, interval: Interval | None) -> float | None:
    """How far the further end of an interval is from its number, as a share of it; None: not known."""
    if number is None or not number > 0 or interval is None or None in interval:
        return None
    return float(np.abs(np.array(interval, dtype=np.float64) / number - 1).max())
