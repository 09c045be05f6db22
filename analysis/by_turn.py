"""How a conversation's waiting grows with its turns and its context, and how conversations end."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.bootstrap import Resampler
from analysis.cells import Cell, distribution
from analysis.levels import Level
from analysis.study import Study
from analysis.turn_metrics import floats

_MOST_TURNS = 20
_LEAST_CONTEXT = 64


def by_turn(study: Study) -> list[Cell]:
    """`level turn` and `ttft_ms ttg_ms`, mean prompt tokens, and cached tokens expected and seen."""
    rows = _with_expected(study)
    rows = rows[rows["turn"] <= _MOST_TURNS]
    found = []
    for key, part in rows.groupby(["level", "turn"]):
        level, turn = np.asarray(key, dtype=int).tolist()
        found.append({"level": level, "turn": turn} | _told(part))
    return found


def by_context(study: Study) -> list[Cell]:
    """The same by length of the prompt: `context_tokens` [from, to), to twice from."""
    rows = _with_expected(study)
    known = rows[rows["prompt_tokens"].notna()]
    size = np.log2(np.maximum(floats(known["prompt_tokens"]), _LEAST_CONTEXT) / _LEAST_CONTEXT)
    found = []
    for key, part in known.groupby(["level", size.astype(int)]):
        level, power = np.asarray(key, dtype=int).tolist()
        low = 0 if power == 0 else _LEAST_CONTEXT * 2**power
        ends = [low, _LEAST_CONTEXT * 2 ** (power + 1)]
        found.append({"level": level, "context_tokens": ends} | _told(part))
    return found


def _with_expected(study: Study) -> pd.DataFrame:
    """Measured turns that ended well, with `expected_cached`: what the turn before left in a prefix cache.

    That is its prompt and its answer; nothing for a first turn. NaN where the turn before isn't known.
    """
    frame = study.frame[study.frame["counts"]].sort_values(["talk", "turn"])
    before = frame.groupby("talk")[["turn", "prompt_tokens", "tokens"]].shift(1)
    left = floats(before["prompt_tokens"]) + floats(before["tokens"])
    follows = floats(before["turn"]) == floats(frame["turn"]) - 1
    first = (frame["turn"] == 1).to_numpy()
    expected: Floats = np.where(first, 0.0, np.where(follows, left, np.nan))
    frame = frame.assign(expected_cached=expected)
    return frame[frame["measured"] & (frame["outcome"] == "ok")]


def _told(rows: pd.DataFrame) -> Cell:
    talks = pd.factorize(rows["talk"])[0]
    resampler = Resampler(int(talks.max()) + 1)
    cell: Cell = {"n": len(rows)}
    for name in ("ttft_ms", "ttg_ms"):
        values = floats(rows[name])
        known = ~np.isnan(values)
        cell[name] = distribution(values[known], talks[known], resampler)
    for name in ("prompt_tokens", "cached_tokens", "expected_cached"):
        cell[f"{name}_mean"] = _mean(floats(rows[name]))
    return cell


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def conversations_of(study: Study, level: Level) -> Cell:
    """`{begun, completed, failed, cut, duration_ms}` of conversations that began in the window.

    Completed: its last turn by plan ended well, where the run says which that is. A conversation lasts from
    when its first turn was due to the end of its last.
    """
    counted = study.frame[study.frame["counts"]]
    first = counted[(counted["turn"] == 1) & counted["in_window"] & (counted["level"] == level.index)]
    mine = counted[counted["talk"].isin(first["talk"])].sort_values(["talk", "turn"])
    last = mine.groupby("talk").tail(1).set_index("talk")
    ended = (last["outcome"] == "ok") & last["last"]
    failed = ~last["outcome"].isin(["ok", "cut", "unfinished", "lost", "dropped"])
    start = first.set_index("talk")["due_ns"].reindex(last.index)
    values = floats(last["end_ns"] - start)[ended.to_numpy()] / 1e6
    values = values[~np.isnan(values)]
    told = distribution(values, np.arange(len(values)), Resampler(max(len(values), 1)))
    return {
        "begun": len(last),
        "completed": int(ended.sum()),
        "failed": int(failed.sum()),
        "cut": int(len(last) - ended.sum() - failed.sum()),
        "duration_ms": told,
    }
