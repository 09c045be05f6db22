"""Ragged arrays: the events of all turns in one flat array, cut into turns by offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.signedinteger[Any]]
"""Integers of any width: events are kept in as few bytes as hold them."""


@dataclass(frozen=True)
class Events:
    """Content events of all turns; those of turn i lie in [offsets[i], offsets[i + 1])."""

    offsets: Ints
    at_us: Whole
    """Arrival, microseconds after the turn's sent_ns."""
    tokens: Whole
    words: Whole

    @cached_property
    def counts(self) -> Ints:
        """Events of each turn."""
        return np.diff(self.offsets)

    def narrow(self) -> Events:
        """The same in as few bytes as hold the numbers, at least 4 an arrival."""
        counts = (_narrow(part, (np.int8, np.int16, np.int32)) for part in (self.tokens, self.words))
        return Events(self.offsets, _narrow(self.at_us, (np.int32,)), *counts)

    def of(self, turns: Ints) -> tuple[Ints, Ints]:
        """(turn, index) of every event of these turns, in their order."""
        counts = self.counts[turns]
        before = np.cumsum(counts) - counts
        turn = np.repeat(turns, counts)
        return turn, np.arange(len(turn)) + np.repeat(self.offsets[turns] - before, counts)

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

    def before(self, values: npt.NDArray[np.generic]) -> Ints:
        """Sum of the values before each event, from 0 at the start of its turn."""
        total = _totals(values)
        sums: Ints = total[:-1].copy()
        sums -= np.repeat(total[self.offsets[:-1]], self.counts)
        return sums

    def reaching(self, values: npt.NDArray[np.generic], least: int) -> Floats:
        """Arrival (in microseconds) of the event with which a turn's sum reaches `least`; NaN if it doesn't.

        Values must not be negative: the sums over all turns are then in order and can be searched.
        """
        total = _totals(values)
        where = np.searchsorted(total[1:], total[self.offsets[:-1]] + least, side="left")
        return _at(self.at_us, where, where < self.offsets[1:])


def joined(parts: list[Events]) -> Events:
    """The events of one part after those of the other, as wide as the widest part; empties the list.

    Column by column, so that only one of them is ever held twice.
    """
    counts = np.concatenate([part.counts for part in parts])
    columns = [
        [part.at_us for part in parts],
        [part.tokens for part in parts],
        [part.words for part in parts],
    ]
    parts.clear()
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return Events(offsets, *(np.concatenate(columns.pop(0)) for _ in range(3)))


def _narrow(values: Whole, widths: Sequence[type[np.signedinteger[Any]]]) -> Whole:
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    for width in widths:
        if np.iinfo(width).min <= low and high <= np.iinfo(width).max:
            return values.astype(width)
    return values


def _totals(values: npt.NDArray[np.generic]) -> Ints:
    total = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=total[1:])
    return total


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
