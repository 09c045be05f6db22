"""Many turns at once, as numpy arrays: what `turnbench.metrics` and `turnbench.limits` compute from.

Analysis makes one of a few thousand records at a time, capacity search of a handful; both then use the same
definitions. Relies on numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

    How the tokens of events are known, in this order: the server's running count by event; its total less
    what no event carried, spread evenly; one token an event.
    """

    tasks: list[str]
    outcomes: list[str]
    late_ms: Floats
    """sent - due."""
    answer_event: Floats
    """Index of the first event that is not reasoning."""
    reported_tokens: Floats
    """Output tokens by the record, from the server wherever it says."""
    even_tokens: Floats
    """Tokens of each event of a turn whose total alone is known, V / k; NaN where events were counted."""
    lag_ms: Floats
    """The longest time between the kernel receiving a read of the turn and the client seeing it."""
    events: Events
    """Their tokens are whole ones: where a total is spread evenly, token j of V comes with event j k / V,
    rounded up."""
    words_per_min: float = WORDS_PER_MIN
    """Speed of the reader that stall time is computed for."""

    @cached_property
    def shown_tokens(self) -> Floats:
        """N_k, the tokens that came with events; 0 for a turn without events."""
        return self.events.sums(self.events.tokens)

    @cached_property
    def output_tokens(self) -> Floats:
        """N: as the record says, else as counted; NaN where there is neither."""
        counted = np.where(self.events.counts > 0, self.shown_tokens, np.nan)
        return np.where(np.isnan(self.reported_tokens), counted, self.reported_tokens)

    @cached_property
    def later_tokens(self) -> Floats:
        """N_k - n_1, the tokens after the first event; 0 for one event, NaN for none."""
        events = self.events
        first = np.where(np.isnan(self.even_tokens), events.first(events.tokens), self.even_tokens)
        later = self.shown_tokens - first
        return np.where(events.counts > 1, later, np.where(events.counts > 0, 0.0, np.nan))

    @cached_property
    def buffered(self) -> Bools:
        """Whether something on its way held the answer back and passed it on in pieces of many events.

        From 8 events on. Events within 0.1 ms of the one before are of its piece. Time is spent waiting for
        pieces, 9/10 of it or more, and not for the client, whose lag is less than the rest. Either by size:
        the first piece has 8 events or more, and so has a piece on average (the last is what was left over).
        No model is so quick: a server that makes several tokens a step sends them as one event, or as a few.
        Or by time: pieces of 3 events and more come with TCP's 200 ms between them, for which Linux holds
        back what a program says will go on (MSG_MORE, TCP_CORK), as haproxy does of itself; what came in the
        meantime may follow after TCP's 40 ms for an acknowledgement.
        """
        events = self.events
        at_us = events.at_us.astype(np.int64)
        waits_us = np.diff(at_us, prepend=0)
        starts = events.offsets[:-1][events.counts > 0]
        waits_us[starts] = at_us[starts]  # the first of a turn follows its request
        begins = waits_us > _TOGETHER_US
        begins[starts] = True
        within_us = events.sums(np.where(begins, 0, waits_us))
        pieces = events.sums(begins.astype(np.int64))
        ordinal = events.before(begins.astype(np.int64)) + begins
        first = events.sums((ordinal == 1).astype(np.int64))
        by_size = (first >= _LEAST_PIECE) & ((pieces - 1) * _LEAST_PIECE <= events.counts)
        inner = begins & (ordinal > 1) & (ordinal < np.repeat(pieces, events.counts))  # the last ends early
        held = begins & (waits_us >= _HELD_US[0]) & (waits_us <= _HELD_US[1])
        follows = np.zeros_like(begins)
        at = np.flatnonzero(begins)
        follows[at[1:]] = held[at[:-1]]
        follows &= inner & (waits_us >= _ACKNOWLEDGED_US[0]) & (waits_us <= _ACKNOWLEDGED_US[1])
        inner_count, held_count, follow_count = (
            events.sums(each.astype(np.int64)) for each in (inner & ~follows, inner & held, follows)
        )
        by_time = (inner_count >= 1) & (held_count >= _MOST_HELD * inner_count)
        by_time &= events.counts >= _LEAST_TIMED_PIECE * (pieces - follow_count)
        last_us = events.last(events.at_us)
        waited = within_us <= (1 - _WAITING_SHARE) * last_us
        late = self.lag_ms * 1e3 > (1 - _WAITING_SHARE) * last_us
        found: Bools = (events.counts >= _LEAST_PIECE) & (by_size | by_time) & waited & ~late
        return found


_TOGETHER_US = 100
_LEAST_PIECE = 8
_LEAST_TIMED_PIECE = 3
_HELD_US = (195_000, 300_000)
_ACKNOWLEDGED_US = (36_000, 60_000)
"""TCP's 200 and 40 ms, and what a busy machine adds to them."""
_MOST_HELD = 0.8
_WAITING_SHARE = 0.9


def counts_stop_token(server: Mapping[str, Any]) -> bool:
    """Whether this server is known to count the stop token in usage, which no event with content carries.

    vLLM does, and so does the emulator, which speaks its dialect. `server`: as run.json records it.
    """
    known = {"vllm", "vllm-cpu", "emulator", "turnbench-emulator"}
    return server.get("backend") in known or server.get("owned_by") in known


def turns_of(
    records: Sequence[TurnRecord], words_per_min: float = WORDS_PER_MIN, stop_counted: bool = False
) -> Turns:
    """The columns of these records; raises OverflowError if an event's number is out of all range.

    `stop_counted`: whether the server is known to count the stop token (see `counts_stop_token`).
    """
    answer_event = np.array([record.answer_event for record in records], dtype=np.float64)
    reported = np.array([record.output_tokens for record in records], dtype=np.float64)
    events = _events(records)
    shown = _shown_total(records, answer_event, reported, stop_counted)
    shown[~((shown >= 1) & (events.counts > 0))] = np.nan
    return Turns(
        tasks=[record.task for record in records],
        outcomes=[record.outcome for record in records],
        late_ms=np.array(
            [None if r.sent_ns is None else (r.sent_ns - r.due_ns) / 1e6 for r in records], dtype=np.float64
        ),
        answer_event=answer_event,
        reported_tokens=reported,
        even_tokens=shown / np.maximum(events.counts, 1),
        lag_ms=np.array([record.lag_us_max / 1e3 for record in records], dtype=np.float64),
        events=_spread(events, shown),
        words_per_min=words_per_min,
    )


def _shown_total(
    records: Sequence[TurnRecord], answer_event: Floats, reported: Floats, stop_counted: bool
) -> Floats:
    """V: the tokens that a turn's events carry, where the server gave its total alone; NaN elsewhere.

    Not in them: reasoning that was counted and never streamed, and the stop token.
    """
    total_alone = [record.token_source == "usage" and not record.event_tokens for record in records]
    reasoning = np.array([record.reasoning_tokens or 0 for record in records], dtype=np.float64)
    hidden = np.where(answer_event == 0, reasoning, 0.0)  # the first event was of the answer already
    stopped = np.array([stop_counted and record.finish_reason == "stop" for record in records], dtype=bool)
    return np.where(total_alone, reported - hidden - stopped, np.nan)


def _spread(events: Events, shown: Floats) -> Events:
    """The events with these totals spread evenly over those of their turns, as whole tokens."""
    uneven = np.flatnonzero(~np.isnan(shown) & (shown != events.counts))
    if not len(uneven):
        return events
    turn, where = events.of(uneven)
    total, count = shown[turn].astype(np.int64), events.counts[turn]
    index = where - events.offsets[turn]
    tokens = events.tokens.copy()
    tokens[where] = (index + 1) * total // count - index * total // count
    return Events(events.offsets, events.at_us, tokens, events.words)


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
