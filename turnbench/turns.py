"""Many turns at once, as numpy arrays: what `turnbench.metrics` and `turnbench.limits` compute from.

Analysis makes one of a few thousand records at a time, capacity search of a handful; both then use the same
definitions. Relies on numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from turnbench.formats.turn import TurnRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.signedinteger[Any]]
"""Integers of any width: events are kept in as few bytes as hold them."""

WORDS_PER_MIN = 238.0
"""Silent reading of most adults (Brysbaert 2019)."""


@dataclass(frozen=True)
class Events:
    """Content events of many turns in flat arrays; those of turn i lie in [offsets[i], offsets[i + 1])."""

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

    def gaps_ms(self, events: Ints) -> Floats:
        """Milliseconds between each of these events and the one before it, which must be of the same turn."""
        return (self.at_us[events].astype(np.float64) - self.at_us[events - 1]) / 1e3

    def first(self, values: npt.NDArray[np.generic]) -> Floats:
        """The value of each turn's first event; NaN where a turn has none."""
        return _at(values, self.offsets[:-1], self.counts > 0)

    def last(self, values: npt.NDArray[np.generic]) -> Floats:
        """The value of each turn's last event; NaN where a turn has none."""
        return _at(values, self.offsets[1:] - 1, self.counts > 0)

    def sums(self, values: npt.NDArray[np.generic]) -> Floats:
        """Sum over the events of each turn; 0 where a turn has none."""
        return self._reduced(np.add, values, 0.0)

    def maxima(self, values: npt.NDArray[np.generic]) -> Floats:
        """Maximum over the events of each turn; minus infinity where a turn has none."""
        return self._reduced(np.maximum, values, -np.inf)

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

    def _reduced(self, how: np.ufunc, values: npt.NDArray[np.generic], empty: float) -> Floats:
        out = np.full(len(self.counts), empty)
        present = self.counts > 0
        if present.any():  # empty turns hold no element, so the starts of the others cut the array exactly
            out[present] = how.reduceat(values, self.offsets[:-1][present])
        return out


@dataclass(frozen=True)
class Turns:
    """Columns of many TurnRecords; row i of each is turn i. A number that a record lacks is NaN.

    a_1..a_k are the arrivals of a turn's content events, n_i the tokens in event i, N_k those counted up to
    a_k and N all output tokens.
    """

    tasks: list[str]
    outcomes: list[str]
    late_ms: Floats
    """sent - due."""
    answer_event: Floats
    """Index of the first event that is not reasoning."""
    reported_tokens: Floats
    """Output tokens by the record, from the server wherever it says."""
    from_total: Bools
    """Whether the server reported one total for the turn and nothing by event."""
    events: Events
    words_per_min: float = WORDS_PER_MIN
    """Speed of the reader that stall time is computed for."""

    @cached_property
    def counted_tokens(self) -> Floats:
        """Tokens counted event by event; 0 for a turn without events."""
        return self.events.sums(self.events.tokens)

    @cached_property
    def output_tokens(self) -> Floats:
        """N: as the record says, else as counted; NaN where there is neither."""
        counted = np.where(self.events.counts > 0, self.counted_tokens, np.nan)
        return np.where(np.isnan(self.reported_tokens), counted, self.reported_tokens)

    @cached_property
    def tokens_by_event(self) -> Bools:
        """Whether the tokens of each event are known, and not only the turn's total.

        A total that the events explain (one more is the stop token, which has no event) leaves one token an
        event; one that they can't explain says that events carried several.
        """
        counted, total = self.counted_tokens, self.output_tokens
        return ~(self.from_total & (counted > 0) & ((total > counted + 1) | (total < counted)))

    @cached_property
    def token_scale(self) -> Floats:
        """Tokens that one counted token stands for: 1 or, where only a total is known, that spread evenly."""
        scale = np.ones(len(self.outcomes))
        np.divide(self.output_tokens, self.counted_tokens, out=scale, where=~self.tokens_by_event)
        return scale

    @cached_property
    def later_tokens(self) -> Floats:
        """N_k - n_1, the tokens after the first event; 0 for one event, NaN for none."""
        events = self.events
        later = (self.counted_tokens - events.first(events.tokens)) * self.token_scale
        return np.where(events.counts > 1, later, np.where(events.counts > 0, 0.0, np.nan))


def turns_of(records: Sequence[TurnRecord], words_per_min: float = WORDS_PER_MIN) -> Turns:
    """The columns of these records; raises OverflowError if an event's number is out of all range."""
    return Turns(
        tasks=[record.task for record in records],
        outcomes=[record.outcome for record in records],
        late_ms=np.array(
            [None if r.sent_ns is None else (r.sent_ns - r.due_ns) / 1e6 for r in records], dtype=np.float64
        ),
        answer_event=np.array([record.answer_event for record in records], dtype=np.float64),
        reported_tokens=np.array([record.output_tokens for record in records], dtype=np.float64),
        from_total=np.array([record.token_source == "usage" for record in records], dtype=bool),
        events=_events(records),
        words_per_min=words_per_min,
    )


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


def _events(records: Sequence[TurnRecord]) -> Events:
    counts = [len(record.event_us) for record in records]
    offsets = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    at_us = np.fromiter(chain.from_iterable(record.event_us for record in records), np.int64, offsets[-1])
    tokens = _by_event([record.event_tokens for record in records], counts, 1)
    return Events(offsets, at_us, tokens, _by_event([record.event_words for record in records], counts, 0))


def _by_event(lists: Iterable[list[int] | None], counts: list[int], default: int) -> Whole:
    """A number for each event: the record's own where they are aligned with its events, else the default."""
    lists, total = list(lists), sum(counts)
    if not any(lists):
        return np.full(total, default)
    fitted = (
        values if values is not None and len(values) == count else repeat(default, count)
        for values, count in zip(lists, counts, strict=True)
    )
    return np.fromiter(chain.from_iterable(fitted), np.int32, total).astype(np.int64)


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
