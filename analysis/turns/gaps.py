"""Gaps between neighbouring events, pooled over turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnbench.turns import Events, Floats, Ints

_MOST = 100_000


@dataclass(frozen=True)
class Gaps:
    """Gaps in milliseconds with the cluster of each; `n` and `mean_ms` are of all of them.

    Above 100,000, `values_ms` are so many taken at random: that moves a percentile's rank by
    0.16 % at most (one standard error), and time and memory no longer grow with the run.
    """

    values_ms: Floats
    clusters: Ints
    n: int
    mean_ms: float | None


def gaps_of(events: Events, turns: Ints, clusters: Ints) -> Gaps:
    """The gaps inside these turns, never across two of them; clusters: one for each turn."""
    starts, counts = events.offsets[turns], np.maximum(events.counts[turns] - 1, 0)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        return Gaps(np.zeros(0), np.zeros(0, dtype=np.int64), 0, None)
    chosen = np.arange(total) if total <= _MOST else np.random.default_rng(0).integers(0, total, _MOST)
    turn = np.searchsorted(ends, chosen, side="right")
    event = starts[turn] + 1 + chosen - (ends - counts)[turn]
    values_ms = events.gaps_ms(event)
    long = counts > 0
    spans = events.at_us[(starts + counts)[long]].astype(np.float64) - events.at_us[starts[long]]
    return Gaps(values_ms, clusters[turn], total, float(spans.sum()) / total / 1e3)
