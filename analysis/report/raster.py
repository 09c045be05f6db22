"""When each piece of the slowest answers arrived: the pauses that no percentile of turns shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.turns.frame import floats
from analysis.turns.study import Study

_TURNS = 20
_MOST_EVENTS = 250


def raster_of(study: Study) -> dict[str, Any] | None:
    """`{turns, of, thinned}`: the 20 measured turns with the longest time to generate, slowest first.

    A turn: `{task, load, conversation, turn, outcome, at_s, gap_s}`; `at_s` are arrivals since it was sent,
    at most 250 of them evenly chosen, `gap_s` the two ends of its longest pause. None without any arrival.
    """
    rows = study.measured[study.measured["ttg_ms"].notna()]
    if rows.empty:
        return None
    slowest = rows.iloc[np.argsort(-floats(rows["ttg_ms"]), kind="stable")[:_TURNS]]
    loads = {level.index: level.load for level in study.levels}
    turns, thinned = [], False
    for place, row in zip(slowest.index, slowest.to_dict("records"), strict=True):
        at_us = study.events.at_us[study.events.of(np.array([place]))[1]]
        step = -(-len(at_us) // _MOST_EVENTS)
        thinned |= step > 1
        turn = {
            "task": str(row["task"]),
            "load": loads.get(row["level"], ""),
            "conversation": int(row["conversation"]),
            "turn": int(row["turn"]),
            "outcome": str(row["outcome"]),
            "at_s": [round(float(us) / 1e6, 4) for us in at_us[::step]],
            "gap_s": _longest_pause(at_us),
        }
        turns.append(turn)
    return {"turns": turns, "of": len(rows), "thinned": thinned}


def _longest_pause(at_us: Any) -> list[float] | None:
    if len(at_us) < 2:
        return None
    gap = int(np.argmax(np.diff(at_us)))
    return [round(float(us) / 1e6, 4) for us in at_us[gap : gap + 2]]
