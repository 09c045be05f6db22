"""What a level did in its window: tokens by arrival, streams in flight; and throughput against load."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import LevelSummary, LoadCurve
from turnbench.stats.batches import SLOTS
from turnbench.turns import Floats, Ints

_REPEATS = 1000
_GAIN = 0.05
"""A level that adds less than this share of throughput buys none."""


@dataclass(frozen=True)
class Arrived:
    """Tokens that arrived inside each level's window, by model, task and level."""

    frame: pd.DataFrame
    """Columns `model task level tokens`."""
    by_slot: Floats
    """Of each row, the tokens by twentieth of the window, a turn's spread evenly over its stream."""

    def of(self, model: str, task: str, level: int | str) -> tuple[float, Floats]:
        """(tokens, tokens by slot) of one of each, or of "all"."""
        mine = np.ones(len(self.frame), dtype=bool)
        for column, value in (("model", model), ("task", task), ("level", level)):
            if value != "all":
                mine &= (self.frame[column] == value).to_numpy(dtype=bool)
        return float(self.frame["tokens"].to_numpy()[mine].sum()), self.by_slot[mine].sum(axis=0)


def arrived_tokens(study: Study) -> Arrived:
    """Tokens of ALL records that arrived inside each level's window.

    Counted by arrival, so failed turns, ramps and tails cut by the window's end all weigh what they were.
    Tokens after the last content event (the stop token) arrive with the end of the stream.
    """
    frame, events = study.frame, study.events
    if frame.empty or not study.levels:
        empty = pd.DataFrame({"model": [], "task": [], "level": [], "tokens": []})
        return Arrived(empty, np.zeros((0, SLOTS)))
    origin_ns = study.levels[0].start_ns
    sent_us = np.nan_to_num(floats(frame["sent_ns"] - origin_ns) / 1e3)
    end_us = floats(frame["end_ns"] - origin_ns) / 1e3
    even, counted = floats(frame["even_tokens"]), floats(frame["shown_tokens"])
    after = np.maximum(np.nan_to_num(floats(frame["tokens"]) - counted), 0.0)
    names = ["model", "task"]
    codes = np.asarray(frame.groupby(names, sort=False).ngroup(), dtype=np.int64)
    keys = frame[names].drop_duplicates()  # in the order in which groups are numbered: of first appearance
    first_us, last_us = (sent_us + floats(frame[edge]) * 1e3 for edge in ("ttft_ms", "ttg_ms"))
    parts, by_slot = [], []
    for level in study.levels:
        by_slot.append(tokens_by_block(frame, level, codes, len(keys)))
        window = (level.window_start_ns - origin_ns) / 1e3, (level.window_end_ns - origin_ns) / 1e3
        whole = (first_us >= window[0]) & (last_us < window[1])
        found = np.bincount(codes[whole], counted[whole], len(keys)).astype(np.float64)
        rows = np.flatnonzero(~whole & (first_us < window[1]) & (last_us >= window[0]))
        turn, event = events.of(rows)  # only turns that cross an end of the window are looked at by event
        weights = np.where(np.isnan(even[turn]), events.tokens[event], even[turn])
        found += _inside(sent_us[turn] + events.at_us[event], weights, codes[turn], window, len(keys))
        found += _inside(end_us, after, codes, window, len(keys))
        parts.append(keys.assign(level=level.index, tokens=found))
    return Arrived(pd.concat(parts, ignore_index=True), np.concatenate(by_slot))


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


def little(rows: pd.DataFrame, level: Level, streams: float | None) -> float | None:
    """Streams in flight over (turns a second x mean time in the system); 1 by Little's law (1961).

    `rows`: the level's measured turns. Far from 1 the level was not steady, or its window holds few turns.
    """
    busy_ms = float(np.nansum(floats(rows["end_ns"] - rows["sent_ns"]) / 1e6))
    if streams is None or busy_ms <= 0 or level.window_s <= 0:
        return None
    return float(streams / (busy_ms / 1e3 / level.window_s))


def load_curve(study: Study, levels: list[LevelSummary]) -> LoadCurve | None:
    """None where the run has but one level. `levels`: as in the summary."""
    played = [level for level in study.levels if level.window_s > 0]
    if len(played) < 2:
        return None
    order = sorted(played, key=lambda level: level.amount)
    blocks = np.stack([tokens_by_block(study.frame, level) / level.window_s for level in order])
    found = _saturation(blocks.sum(axis=1)[None, :])[0]
    rng = np.random.default_rng(0)
    draws = rng.integers(0, SLOTS, (len(order), _REPEATS, SLOTS))
    rates = np.stack([part[chosen].sum(axis=1) for part, chosen in zip(blocks, draws, strict=True)], axis=1)
    ends = np.quantile(_saturation(rates), (0.025, 0.975), method="inverted_cdf").astype(int)
    names = [*(level.load for level in order[:-1]), None]
    return LoadCurve(names[found], [names[end] for end in ends], *_capacity(order, levels))


def _saturation(rates: Floats) -> Ints:
    """Of each row of throughputs in order of load, the first that no later one beats by over 5 %.

    The last load is never known to be one: nothing above it was tried.
    """
    best_later = np.maximum.accumulate(rates[:, ::-1], axis=1)[:, ::-1]
    flat = best_later <= rates * (1 + _GAIN)
    return np.asarray(np.argmax(flat, axis=1), dtype=np.int64)


def tokens_by_block(frame: pd.DataFrame, level: Level, codes: Ints | None = None, size: int = 1) -> Floats:
    """Tokens that arrived in each twentieth of the window, a turn's spread evenly over its stream.

    `codes`: the group of each turn, of `size` groups; then a row each.
    """
    by_group = codes is not None
    codes = np.zeros(len(frame), dtype=np.int64) if codes is None else codes
    sent, first, last = (
        np.nan_to_num(part)
        for part in (
            floats(frame["sent_ns"] - level.window_start_ns) / 1e6,
            floats(frame["ttft_ms"]),
            floats(frame["ttg_ms"]),
        )
    )
    begin, end = sent + first, sent + np.maximum(last, first + 1e-3)
    tokens = np.nan_to_num(floats(frame["tokens"]))
    near = (end > 0) & (begin < level.window_s * 1e3)
    begin, end, tokens, codes = begin[near], end[near], tokens[near], codes[near]
    edges = np.linspace(0, level.window_s * 1e3, SLOTS + 1)
    by_edge = [
        np.bincount(codes, tokens * np.clip((edge - begin) / (end - begin), 0, 1), size) for edge in edges
    ]
    found: Floats = np.diff(by_edge, axis=0).T
    return found if by_group else found[0]


def _capacity(order: list[Level], levels: list[LevelSummary]) -> tuple[str | None, bool | None]:
    """(the highest load up to which every level keeps its limits, whether it is sure that this one does and
    the next does not); None where the lowest misses them."""
    judged = {level.index: level for level in levels}
    found, sure = None, None
    for level in order:
        one = judged[level.index]
        if one.holds_limits is not True:
            return found, sure if sure is None else sure and one.limits_sure is not False
        found, sure = level.load, one.limits_sure
    return found, sure
