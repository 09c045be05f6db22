"""What the report draws that no summary holds, taken from a run while its tables are in memory.

Each level over time, the slowest answers event by event, distributions, and the client's lag.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.measures.attainment import Attainment, attainment
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import RunManifest
from turnbench.outcomes import TROUBLE
from turnbench.server_metrics import named
from turnbench.turns import Floats

LEVELS = ("running", "waiting", "kv_share", "cache_hit_share", "acceptance_share")
"""What is drawn of a server's metrics as it stands in them."""
GROWN_SHARES = {
    "cache_hit_share": ("cache_hits", "cache_queries"),
    "acceptance_share": ("accepted_tokens", "drafted_tokens"),
}
"""Shares of what was counted since the sample before, where there are counts."""
_MOST_POINTS = 240
_MOST_ERRORS = 400
_MOST_LEVELS = 40
_AT_ONCE_S = 1e-3
"""An answer that arrived within less is drawn as one step."""
_MOST_LAGS = 600
_MOST_SCENARIO_CHARS = 50_000
_MOST_CELLS = 400
_MOST_SLOW_TURNS = 20
_MOST_EVENTS = 250


@dataclass(frozen=True)
class LagSeries:
    """Event loop lag of one worker, over seconds since the run's start."""

    worker: int
    at_s: list[float]
    lag_ms: list[float]


@dataclass(frozen=True)
class Attained:
    """Attainment curves of one cell."""

    model: str
    task: str
    load: str
    n: int
    """All measured turns, failed ones too."""
    ttft_ms: Attainment
    ttg_ms: Attainment


@dataclass(frozen=True)
class Errors:
    """Failed turns of a level: how many, and when each of them (or a thinned choice) ended."""

    count: int
    at_s: list[float]
    outcomes: list[str]


@dataclass(frozen=True)
class ServerSeries:
    """What the server reported of itself; a name is missing where it doesn't report it."""

    at_s: list[float]
    values: dict[str, list[float | None]]
    """By the keys of LEVELS, and `preemptions`, those since the sample before."""


@dataclass(frozen=True)
class LevelTimeline:
    """A level, over seconds since its start."""

    load: str
    window_s: tuple[float, float]
    at_s: list[float]
    streams: list[int]
    """Open at that moment."""
    tokens_per_s: list[float]
    """Tokens that arrived until then, a turn's spread evenly over its stream."""
    errors: Errors
    server: ServerSeries


@dataclass(frozen=True)
class SlowTurn:
    """When each event of one answer arrived, in seconds since the turn was sent."""

    task: str
    load: str
    conversation: int
    turn: int
    at_s: list[float]
    pause_s: tuple[float, float] | None
    """Both ends of its longest pause; null with fewer than two events."""


@dataclass(frozen=True)
class SlowTurns:
    """The measured turns with the longest time to generate, slowest first."""

    turns: list[SlowTurn]
    of: int
    thinned: bool
    """Whether some have more events than are drawn."""


@dataclass(frozen=True)
class RunFacts:
    """What the report says of one run besides its summary."""

    name: str
    manifest: RunManifest
    scenario: str | None
    lags: list[LagSeries]
    attained: list[Attained]
    timelines: list[LevelTimeline]
    slowest: SlowTurns | None
    """Null where nothing arrived."""


def facts_of(study: Study) -> RunFacts:
    """Gather them."""
    scenario = study.run.scenario_text()
    times = _Times(study.frame)
    return RunFacts(
        name=study.run.path.resolve().name,
        manifest=study.manifest,
        scenario=scenario and scenario[:_MOST_SCENARIO_CHARS],
        lags=_lags(study),
        attained=_attained(study),
        timelines=[_timeline(study, level, times) for level in study.levels[:_MOST_LEVELS]],
        slowest=_slowest(study),
    )


def _lags(study: Study) -> list[LagSeries]:
    origin_ns = study.levels[0].start_ns
    known = study.health.dropna(subset=["loop_lag_ms"])
    found = []
    for worker, lines in known.groupby(known["worker"].astype(int)):
        kept = _thinned(lines, _MOST_LAGS)
        at_s = ((kept["t_ns"].astype("float64") - origin_ns) / 1e9).round(1).tolist()
        lag_ms = kept["loop_lag_ms"].round(2).tolist()
        found.append(LagSeries(int(worker), at_s, lag_ms))
    return found


def _attained(study: Study) -> list[Attained]:
    loads = {level.index: level.load for level in study.levels}
    cells = list(study.measured.groupby(["model", "task", "level"], sort=False))[:_MOST_CELLS]
    found = []
    for keys, part in cells:
        model, task, level = np.asarray(keys, dtype=object).tolist()
        curves = attainment(part, "ttft_ms"), attainment(part, "ttg_ms")
        found.append(Attained(str(model), str(task), loads.get(level, str(level)), len(part), *curves))
    return found


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


def _timeline(study: Study, level: Level, times: _Times) -> LevelTimeline:
    length_s = max((level.end_ns - level.start_ns) / 1e9, 1e-3)
    steps = max(1, min(_MOST_POINTS, round(length_s)))
    at = np.linspace(0, length_s, steps + 1)
    edges = at + (level.start_ns - times.origin_ns) / 1e9
    begin, end = ((ns - level.start_ns) / 1e9 for ns in (level.window_start_ns, level.window_end_ns))
    return LevelTimeline(
        load=level.load,
        window_s=(round(begin, 2), round(end, 2)),
        at_s=[round(float(second), 2) for second in at[1:]],
        streams=times.streams(edges[1:]),
        tokens_per_s=times.tokens_per_s(edges),
        errors=_errors(study.frame, level),
        server=_server(study, level),
    )


def _errors(frame: pd.DataFrame, level: Level) -> Errors:
    mine = frame[frame["counts"] & (frame["level"] == level.index) & frame["outcome"].isin(TROUBLE)]
    kept = _thinned(mine, _MOST_ERRORS)
    ended = kept["end_ns"].fillna(kept["moment_ns"])
    at_s = (floats(ended - level.start_ns) / 1e9).round(2).tolist()
    return Errors(len(mine), at_s, kept["outcome"].tolist())


def _server(study: Study, level: Level) -> ServerSeries:
    samples = [sample for sample in study.server if level.start_ns <= sample.t_ns < level.end_ns]
    samples = samples[:: max(1, -(-len(samples) // _MOST_POINTS))]
    seen = [named(sample.values) for sample in samples]
    values: dict[str, list[float | None]] = {
        key: [one.get(key) for one in seen] for key in LEVELS if any(key in one for one in seen)
    }
    for key, (part, whole) in GROWN_SHARES.items():
        if any(whole in one for one in seen):
            parts, wholes = _grown(seen, part), _grown(seen, whole)
            values[key] = [
                part / whole if part is not None and whole else None
                for part, whole in zip(parts, wholes, strict=True)
            ]
    if any(preempted := _grown(seen, "preemptions")):
        values["preemptions"] = preempted
    rounded = {
        key: [round(value, 4) if value is not None and np.isfinite(value) else None for value in each]
        for key, each in values.items()
    }
    return ServerSeries([round((s.t_ns - level.start_ns) / 1e9, 2) for s in samples], rounded)


def _grown(seen: list[dict[str, float]], key: str) -> list[float | None]:
    """By how much a count grew since the sample before; null where it is not known, or fell."""
    counts = [one.get(key) for one in seen]
    pairs = zip([None, *counts], counts, strict=False)
    return [now - was if was is not None and now is not None and now >= was else None for was, now in pairs]


def _thinned(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many rows, evenly chosen."""
    return rows.iloc[:: max(1, -(-len(rows) // most))]


def _slowest(study: Study) -> SlowTurns | None:
    rows = study.measured[study.measured["ttg_ms"].notna()]
    if rows.empty:
        return None
    slowest = rows.iloc[np.argsort(-floats(rows["ttg_ms"]), kind="stable")[:_MOST_SLOW_TURNS]]
    loads = {level.index: level.load for level in study.levels}
    turns, thinned = [], False
    for place, row in zip(slowest.index, slowest.to_dict("records"), strict=True):
        at_us = study.events.at_us[study.events.of(np.array([place]))[1]]
        step = -(-len(at_us) // _MOST_EVENTS)
        thinned |= step > 1
        pause = None
        if len(at_us) > 1:
            longest = int(np.argmax(np.diff(at_us)))
            pause = (_seconds(at_us[longest]), _seconds(at_us[longest + 1]))
        names = str(row["task"]), loads.get(row["level"], "")
        number = int(row["conversation"]), int(row["turn"])
        turns.append(SlowTurn(*names, *number, [_seconds(us) for us in at_us[::step]], pause))
    return SlowTurns(turns, len(rows), thinned)


def _seconds(us: float) -> float:
    return round(float(us) / 1e6, 4)
