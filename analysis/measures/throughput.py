"""What arrived inside a level's window: tokens by arrival, streams in flight."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.turns import Floats, Ints


def arrived_tokens(study: Study) -> pd.DataFrame:
    """Columns `model task level tokens`: tokens of ALL records that arrived inside each level's window.

    Counted by arrival, so failed turns, ramps and tails cut by the window's end all weigh what they were.
    Tokens after the last content event (the stop token) arrive with the end of the stream.
    """
    frame, events = study.frame, study.events
    if frame.empty or not study.levels:
        return pd.DataFrame({"model": [], "task": [], "level": [], "tokens": []})
    origin_ns = study.levels[0].start_ns
    sent_us = np.nan_to_num(floats(frame["sent_ns"] - origin_ns) / 1e3)
    end_us = floats(frame["end_ns"] - origin_ns) / 1e3
    scale = floats(frame["token_scale"])
    counted = floats(frame["event_token_sum"]) * scale
    after = np.maximum(np.nan_to_num(floats(frame["tokens"]) - counted), 0.0)
    names = ["model", "task"]
    codes = np.asarray(frame.groupby(names, sort=False).ngroup(), dtype=np.int64)
    keys = frame[names].drop_duplicates()  # in the order in which groups are numbered: of first appearance
    first_us, last_us = (sent_us + floats(frame[edge]) * 1e3 for edge in ("ttft_ms", "ttg_ms"))
    parts = []
    for level in study.levels:
        window = _window_us(level, origin_ns)
        whole = (first_us >= window[0]) & (last_us < window[1])
        found = np.bincount(codes[whole], counted[whole], len(keys)).astype(np.float64)
        rows = np.flatnonzero(~whole & (first_us < window[1]) & (last_us >= window[0]))
        turn, event = events.of(rows)  # only turns that cross an end of the window are looked at by event
        weights = scale[turn] * events.tokens[event]
        found += _inside(sent_us[turn] + events.at_us[event], weights, codes[turn], window, len(keys))
        found += _inside(end_us, after, codes, window, len(keys))
        parts.append(keys.assign(level=level.index, tokens=found))
    return pd.concat(parts, ignore_index=True)


def _window_us(level: Level, origin_ns: int) -> tuple[float, float]:
    return (level.window_start_ns - origin_ns) / 1e3, (level.window_end_ns - origin_ns) / 1e3


def _inside(at_us: Floats, weights: Floats, code: Ints, window: tuple[float, float], size: int) -> Floats:
    inside = (at_us >= window[0]) & (at_us < window[1])
    return np.bincount(code[inside], weights[inside], size).astype(np.float64)


def streams_mean(frame: pd.DataFrame, level: Level) -> float | None:
    """Mean number of streams in flight in a level's window: time spent in it, over its length."""
    if level.window_s <= 0:
        return None
    sent = floats(frame["sent_ns"] - level.window_start_ns) / 1e9
    end = floats(frame["end_ns"] - level.window_start_ns) / 1e9
    end = np.where(np.isnan(end), level.window_s, end)
    inside = np.clip(end, 0, level.window_s) - np.clip(sent, 0, level.window_s)
    return float(np.nansum(inside) / level.window_s)
