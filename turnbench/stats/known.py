"""How well the turns of a level say one of its numbers: what --until waits for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnbench.stats.batches import slots_of
from turnbench.stats.bootstrap import Interval, Resampler
from turnbench.stats.intervals import furthest_share, quantile_interval, ratio_interval
from turnbench.stats.percentiles import QUANTILES, percentile, reportable
from turnbench.turns import Floats, Ints

TPS = "tps"
KEYS: dict[str, tuple[str, str] | None] = {
    f"{metric}_{name}": (f"{metric}_ms", name) for metric in ("ttft", "ttg") for name in ("p50", "p90", "p99")
} | {TPS: None}
"""What may be asked: the metric and percentile of each key; tps is a ratio of sums."""


@dataclass(frozen=True)
class SentTurns:
    """Measured turns, a row each: answered ones, and those of which only is known that they took longer."""

    position: Floats
    """Where in the window each was sent, 0 to 1."""
    talks: Ints
    """The conversation of each, counted from 0."""
    ttft_ms: Floats
    """Infinite: the turn was given up before it had one."""
    ttg_ms: Floats
    tokens: Floats


@dataclass(frozen=True)
class KnownNumber:
    """A number with its 95 % interval; None where there are too few turns for it."""

    number: float | None
    interval: Interval | None

    @property
    def share(self) -> float | None:
        """How far the further end of the interval is from the number, as a share of it."""
        return furthest_share(self.number, self.interval)


def known(key: str, turns: SentTurns) -> KnownNumber:
    """One of KEYS over these turns, and its interval as every summary has it."""
    slots, asked = slots_of(turns.position), KEYS[key]
    if asked is None:
        ended = np.isfinite(turns.ttg_ms)
        tokens, seconds = np.nan_to_num(turns.tokens[ended]), turns.ttg_ms[ended] / 1e3
        if not seconds.sum() > 0:
            return KnownNumber(None, None)
        talks = turns.talks[ended]
        resampler = Resampler(int(talks.max()) + 1)
        ends = ratio_interval(tokens, seconds, talks, slots[ended], resampler)
        return KnownNumber(float(tokens.sum() / seconds.sum()), ends)
    metric, name = asked
    values: Floats = getattr(turns, metric)
    has = ~np.isnan(values)
    values, talks, slots = values[has], turns.talks[has], slots[has]
    ordered = np.sort(values)
    if name not in reportable(ordered, values, talks):
        return KnownNumber(None, None)
    number = percentile(values, QUANTILES[name])
    return KnownNumber(number, quantile_interval(ordered, values, talks, slots, QUANTILES[name]))
