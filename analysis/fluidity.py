"""The fluidity index of a stream, after Metron/Etalon (arXiv 2407.07000), for all turns at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from analysis.arrays import Events, Floats, Ints


def fluidity(events: Events, prefill_ms: Floats, decode_ms: Floats) -> tuple[Floats, Floats]:
    """(deadlines met, deadlines in all) of each turn; both 0 for a turn without events.

    Token i is due at prefill + i * decode. An early token keeps the slack it earned; a late one misses
    every deadline that went by until it came, and the deadlines after it start anew from its arrival.
    """
    turns = len(events.counts)
    met, missed = np.zeros(turns), np.zeros(turns)
    due, decode = prefill_ms.astype(np.float64), decode_ms.astype(np.float64)
    order = np.argsort(-events.counts, kind="stable")  # turns with an i-th event are then the first `live`
    counts = events.counts[order]
    longest = int(counts[0]) if turns else 0
    lives = np.searchsorted(-counts, -np.arange(longest), side="left")
    for step, live in enumerate(lives):
        rows = order[:live]
        where = events.offsets[rows] + step
        _step(rows, events.at_us[where] / 1e3, events.tokens[where], (met, missed, due, decode))
    return met, met + missed


def _step(rows: Ints, at_ms: Floats, tokens: npt.NDArray[np.int32], state: tuple[Floats, ...]) -> None:
    """One event of each row: its first token has the nearest deadline, the rest come at the same time."""
    met, missed, due, decode = state
    has = tokens > 0
    late = has & (at_ms > due[rows])
    gone = np.where(late, np.floor((at_ms - due[rows]) / decode[rows]) + 1, 0.0)
    missed[rows] += gone
    met[rows] += tokens - late
    due[rows] = np.where(late, at_ms, due[rows]) + tokens * decode[rows]
