"""The share of turns that failed, or that met all limits, on both sides of a comparison.

The interval of the difference joins those of both shares (Newcombe 1998): each is Jeffreys' (Brown, Cai and
DasGupta 2001), of as many independent turns as these turns of conversations are worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Literal

import numpy as np
import pandas as pd

from analysis.compare.variants import clusters
from turnbench.outcomes import CENSORED, FAILED
from turnbench.stats.distributions import beta_quantile
from turnbench.stats.percentiles import effective_share_turns
from turnbench.turns import Bools, Floats, Ints

_SHARE_CONFIDENCE = 0.99


@dataclass(frozen=True)
class ShareSides:
    """One share of one cell: whether each turn counts, and its run and conversation, of A and of B."""

    hits: tuple[Bools, Bools]
    runs: tuple[list[pd.DataFrame], list[pd.DataFrame]]

    @property
    def turns(self) -> tuple[int, int]:
        return len(self.hits[0]), len(self.hits[1])

    @property
    def a(self) -> float:
        return float(self.hits[0].mean())

    @property
    def b(self) -> float:
        return float(self.hits[1].mean())

    @property
    def repeated(self) -> bool:
        """Whether both sides have several runs."""
        return min(len(side) for side in self.runs) > 1

    def by_run(self) -> tuple[Floats, Floats]:
        """The share of each run, of A and of B."""
        found = []
        for hits, side in zip(self.hits, self.runs, strict=True):
            ends = np.cumsum([len(rows) for rows in side])
            found.append(np.array([part.mean() for part in np.split(hits, ends[:-1]) if len(part)]))
        return found[0], found[1]

    @cached_property
    def _talks(self) -> tuple[Ints, Ints]:
        return clusters(pd.concat(self.runs[0])), clusters(pd.concat(self.runs[1]))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Of A's share less B's."""
        (a_low, a_high), (b_low, b_high) = (
            _ends(hits, talks, confidence) for hits, talks in zip(self.hits, self._talks, strict=True)
        )
        apart = self.a - self.b
        low = apart - sqrt((self.a - a_low) ** 2 + (b_high - self.b) ** 2)
        return low, apart + sqrt((a_high - self.a) ** 2 + (self.b - b_low) ** 2)

    @cached_property
    def clearness(self) -> float:
        """The distance of the shares in widths of its interval at 99 %, to put them in order."""
        low, high = self.interval(_SHARE_CONFIDENCE)
        return abs(self.a - self.b) / max(high - low, 1e-12)


def _ends(hits: Bools, talks: Ints, confidence: float) -> tuple[float, float]:
    share = float(hits.mean())
    # A share of none or all has no variance to learn its design effect from: a conversation then counts once.
    if 0 < share < 1:
        worth = effective_share_turns(hits, talks, share, confidence)
    else:
        worth = float(len(np.unique(talks)))
    tail = (1 - confidence) / 2
    low, high = (beta_quantile(p, share * worth + 0.5, (1 - share) * worth + 0.5) for p in (tail, 1 - tail))
    return (0.0 if share == 0 else min(low, share)), (1.0 if share == 1 else max(high, share))


@dataclass(frozen=True)
class ShareKind:
    """What is counted, and which change of it is a regression."""

    name: Literal["failed", "unfinished", "goodput"]
    hits: Callable[[pd.DataFrame], Bools]
    counted: Callable[[pd.DataFrame], pd.DataFrame]
    """The turns that the share is of."""
    points: float
    """By how much it has to be worse, where runs were repeated or no drift between them could explain it."""
    single_points: float
    """The same for one run a side."""
    sign: int
    """+1 where a rise is worse."""

    def known(self, runs: list[pd.DataFrame]) -> bool:
        """Whether every run has turns of which this can be said, by the same limits."""
        return all(len(self.counted(rows)) for rows in runs) and (
            self.name != "goodput"
            or len({limits for rows in runs for limits in rows["limits"].unique()}) == 1
        )

    def sides(self, a: list[pd.DataFrame], b: list[pd.DataFrame]) -> ShareSides:
        """Both sides of a cell."""
        counted = [self.counted(rows) for rows in a], [self.counted(rows) for rows in b]
        hits = [np.concatenate([self.hits(rows) for rows in side]) for side in counted]
        return ShareSides((hits[0], hits[1]), counted)

    def verdict(self, sides: ShareSides, clear: bool) -> Literal["worse", "better", "same"]:
        """worse and better: clear of chance within the runs and by so many points; with repeats every run of
        the worse side also lies beyond every run of the other."""
        apart = (sides.a - sides.b) * self.sign
        least = self.single_points
        if sides.repeated:
            a, b = (part * self.sign for part in sides.by_run())
            if a.min() > b.max() or a.max() < b.min():
                least = self.points
        if not clear or abs(apart) < least:
            return "same"
        return "worse" if apart > 0 else "better"


SHARES = (
    ShareKind(
        "failed",
        hits=lambda rows: rows["outcome"].isin(FAILED).to_numpy(dtype=bool),
        counted=lambda rows: rows,
        points=0.01,
        single_points=0.01,
        sign=1,
    ),
    # Deadlines and limits lie among waits that drift from run to run: 10 % moves a share by 10 points or so.
    ShareKind(
        "unfinished",
        hits=lambda rows: rows["outcome"].isin(CENSORED).to_numpy(dtype=bool),
        counted=lambda rows: rows,
        points=0.05,
        single_points=0.20,
        sign=1,
    ),
    ShareKind(
        "goodput",
        hits=lambda rows: rows["meets"].to_numpy(dtype=bool, na_value=False),
        counted=lambda rows: rows[rows["meets"].notna()],
        points=0.05,
        single_points=0.20,
        sign=-1,
    ),
)
