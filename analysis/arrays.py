"""Ragged arrays: the events of all turns in one flat array, cut into turns by offsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Events:
    """Content events of all turns; those of turn i lie in [offsets[i], offsets[i + 1])."""

    offsets: Ints
    at_us: Ints
    """Arrival, microseconds after the turn's sent_ns."""
    tokens: npt.NDArray[np.int32]
    words: npt.NDArray[np.int32]

    @property
    def counts(self) -> Ints:
        """Events of each turn."""
        return np.diff(self.offsets)

    def first(self, values: npt.NDArray[np.generic]) -> Floats:
        """The value of each turn's first event; NaN where a turn has none."""
        return _at(values, self.offsets[:-1], self.counts > 0)

    def last(self, values: npt.NDArray[np.generic]) -> Floats:
        """The value of each turn's last event; NaN where a turn has none."""
        return _at(values, self.offsets[1:] - 1, self.counts > 0)

    def sums(self, values: npt.NDArray[np.generic]) -> Floats:
        """Sum over the events of each turn; 0 where a turn has none."""
        return _reduced(np.add, values, self.offsets, 0.0)

    def maxima(self, values: npt.NDArray[np.generic]) -> Floats:
        """Maximum over the events of each turn; minus infinity where a turn has none."""
        return _reduced(np.maximum, values, self.offsets, -np.inf)

    def running(self, values: npt.NDArray[np.generic]) -> Ints:
        """Sum of the values up to and including each event, from 0 at the start of its turn."""
        total = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
        sums: Ints = total[1:] - np.repeat(total[self.offsets[:-1]], self.counts)
        return sums

    def take(self, rows: Ints) -> Events:
        """The events of these turns alone, in this order."""
        where = positions(self.offsets, rows)
        offsets = np.concatenate(([0], np.cumsum(self.counts[rows])))
        return Events(offsets, self.at_us[where], self.tokens[where], self.words[where])


def positions(offsets: Ints, rows: Ints) -> Ints:
    """Flat indices of the events of these turns, turn by turn."""
    counts = np.diff(offsets)[rows]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    where: Ints = np.arange(total) + np.repeat(offsets[rows] - (ends - counts), counts)
    return where


def _at(values: npt.NDArray[np.generic], index: Ints, present: Bools) -> Floats:
    out = np.full(len(index), np.nan)
    out[present] = values[index[present]]
    return out


def _reduced(how: np.ufunc, values: npt.NDArray[np.generic], offsets: Ints, empty: float) -> Floats:
    out = np.full(len(offsets) - 1, empty)
    present = np.diff(offsets) > 0
    if present.any():  # empty turns hold no element, so the starts of the others cut the array exactly
        out[present] = how.reduceat(values, offsets[:-1][present])
    return out
