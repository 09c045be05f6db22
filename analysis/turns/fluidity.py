"""The fluidity index of a stream, after Metron/Etalon (arXiv 2407.07000), for all turns at once."""

from __future__ import annotations

import numpy as np

from analysis.stats.arrays import Bools, Events, Floats, Ints, Whole

_ROUNDING_MS = 1e-6


def fluidity(events: Events, prefill_ms: Floats, decode_ms: Floats) -> tuple[Floats, Floats]:
    """(deadlines met, deadlines in all) of each turn; both 0 for a turn without events.

    Token i is due at prefill + i * decode. An early token keeps the slack it earned; a late one misses
    every deadline that went by until it came, and the deadlines after it start anew from its arrival.
    """
    met, missed = events.sums(events.tokens), np.zeros(len(events.counts))
    due, decode = prefill_ms.astype(np.float64), decode_ms.astype(np.float64)
    behind = np.flatnonzero(_may_be_late(events, prefill_ms, decode_ms))
    met[behind] = 0
    order = behind[np.argsort(-events.counts[behind], kind="stable")]
    counts = events.counts[order]
    longest = int(counts[0]) if len(order) else 0
    lives = np.searchsorted(-counts, -np.arange(longest), side="left")
    for step, live in enumerate(lives):  # turns with an i-th event are the first `live` in this order
        rows = order[:live]
        where = events.offsets[rows] + step
        _step(rows, events.at_us[where] / 1e3, events.tokens[where], (met, missed, due, decode))
    return met, met + missed


def _may_be_late(events: Events, prefill_ms: Floats, decode_ms: Floats) -> Bools:
    """Turns of which some event may miss its first deadline; most meet them all and need no second look."""
    spent_ms = events.before(events.tokens) * np.repeat(decode_ms, events.counts)
    return events.maxima(events.at_us / 1e3 - spent_ms) > prefill_ms - _ROUNDING_MS


def _step(rows: Ints, at_ms: Floats, tokens: Whole, state: tuple[Floats, ...]) -> None:
    """One event of each row: its first token has the nearest deadline, the rest come at the same time."""
    met, missed, due, decode = state
    has = tokens > 0
    late = has & (at_ms > due[rows])
    gone = np.where(late, np.floor((at_ms - due[rows]) / decode[rows]) + 1, 0.0)
    missed[rows] += gone
    met[rows] += tokens - late
    due[rows] = np.where(late, at_ms, due[rows]) + tokens * decode[rows]
