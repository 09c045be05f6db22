"""A level as it went, second by second: streams, tokens, failures and the server's own metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.outcomes import TROUBLE
from turnbench.turns import Floats

SERVER = {
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "tgi_queue_size"),
    "kv_share": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
}
"""The first name that the server has of each."""
_MOST_POINTS = 240
_MOST_ERRORS = 400
_MOST_LEVELS = 40
_AT_ONCE_S = 1e-3
"""An answer that arrived within less is drawn as one step."""


def timelines_of(study: Study) -> list[dict[str, Any]]:
    """One a level: `{load, window_s, at_s, streams, tokens_per_s, errors, server}`.

    `at_s` are seconds since the level's start, `streams` those open at that moment, `tokens_per_s` the
    tokens that arrived until then, a turn's spread evenly over its stream; `errors` one a failed turn,
    `server` what it told of itself.
    """
    times = _Times(study.frame)
    return [_timeline(study, level, times) for level in study.levels[:_MOST_LEVELS]]


class _Times:
    """The frame's columns as seconds since its first record, read once for all levels."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.origin_ns = int(frame["moment_ns"].min()) if len(frame) else 0
        sent = floats(frame["sent_ns"] - self.origin_ns) / 1e9
        end = floats(frame["end_ns"] - self.origin_ns) / 1e9
        self.sent = np.sort(sent[~np.isnan(sent)])
        self.end = np.sort(end[~np.isnan(end) & ~np.isnan(sent)])
        first, last = (sent + floats(frame[name]) / 1e3 for name in ("ttft_ms", "ttg_ms"))
        tokens = np.nan_to_num(floats(frame["tokens"]))
        known = ~np.isnan(first) & ~np.isnan(last)
        spread = known & (last - first > _AT_ONCE_S)
        self.at_once = _Steps(last[known & ~spread], tokens[known & ~spread])
        pace = tokens[spread] / (last[spread] - first[spread])
        self.begins, self.ends = _Ramps(first[spread], pace), _Ramps(last[spread], pace)

    def streams(self, at: Floats) -> list[int]:
        begun, ended = (np.searchsorted(times, at, side="right") for times in (self.sent, self.end))
        return [int(count) for count in begun - ended]

    def tokens_per_s(self, edges: Floats) -> list[float]:
        done = self.at_once.until(edges) + self.begins.until(edges) - self.ends.until(edges)
        rates = np.nan_to_num(np.maximum(np.diff(done) / np.diff(edges), 0))
        return [float(f"{rate:.4g}") for rate in rates]


class _Steps:
    """Amounts that come all at once: their sum until a moment."""

    def __init__(self, at: Floats, amounts: Floats) -> None:
        order = np.argsort(at)
        self._at, self._sums = at[order], np.concatenate(([0.0], np.cumsum(amounts[order])))

    def until(self, edges: Floats) -> Floats:
        return np.asarray(self._sums[np.searchsorted(self._at, edges, side="right")])


class _Ramps:
    """Amounts that grow from a moment on, each at its pace: their sum until a moment."""

    def __init__(self, start: Floats, pace: Floats) -> None:
        self._pace, self._moved = _Steps(start, pace), _Steps(start, pace * start)

    def until(self, edges: Floats) -> Floats:
        return edges * self._pace.until(edges) - self._moved.until(edges)


def _timeline(study: Study, level: Level, times: _Times) -> dict[str, Any]:
    length_s = max((level.end_ns - level.start_ns) / 1e9, 1e-3)
    steps = max(1, min(_MOST_POINTS, round(length_s)))
    at = np.linspace(0, length_s, steps + 1)
    edges = at + (level.start_ns - times.origin_ns) / 1e9
    window = [(ns - level.start_ns) / 1e9 for ns in (level.window_start_ns, level.window_end_ns)]
    return {
        "level": level.index,
        "load": level.load,
        "window_s": [round(float(end), 2) for end in window],
        "at_s": [round(float(second), 2) for second in at[1:]],
        "streams": times.streams(edges[1:]),
        "tokens_per_s": times.tokens_per_s(edges),
        "errors": _errors(study.frame, level),
        "server": _server(study, level),
    }


def _errors(frame: pd.DataFrame, level: Level) -> dict[str, Any]:
    """`{count, at_s, outcome}` of failed turns, at most 400 of them spread over all."""
    mine = frame[frame["counts"] & (frame["level"] == level.index) & frame["outcome"].isin(TROUBLE)]
    kept = mine.iloc[:: max(1, -(-len(mine) // _MOST_ERRORS))]
    ended = kept["end_ns"].fillna(kept["moment_ns"])
    at_s = (floats(ended - level.start_ns) / 1e9).round(2).tolist()
    return {"count": len(mine), "at_s": at_s, "outcome": kept["outcome"].tolist()}


def _server(study: Study, level: Level) -> dict[str, Any]:
    """`{at_s, running, waiting, kv_share}`: a list each, where the server tells it."""
    samples = [sample for sample in study.server if level.start_ns <= sample.t_ns < level.end_ns]
    samples = samples[:: max(1, -(-len(samples) // _MOST_POINTS))]
    found: dict[str, Any] = {"at_s": [round((s.t_ns - level.start_ns) / 1e9, 2) for s in samples]}
    for name, known in SERVER.items():
        key = next((key for key in known if any(key in sample.values for sample in samples)), None)
        if key is not None:
            found[name] = [round(s.values[key], 4) if key in s.values else None for s in samples]
    return found
