"""One run, read and measured: what cells, verdict, tables and report are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.turns.conversations import conversations
from analysis.turns.frame import load_health, load_server, load_turns
from analysis.turns.levels import Level, corrected, counted_once, levels_of, placed
from turnbench.limits import TaskLimits, limits_by_task
from turnbench.run_directory import RunDirectory
from turnbench.turns import WORDS_PER_MIN, Events

_RESERVED = {"all": "all (by name)"}
"""A task or model that is called like the sum over all of them."""


@dataclass(frozen=True)
class Study:
    """`frame` has a row for every record, attempts and unmeasured turns included; `events` its events."""

    run: RunDirectory
    frame: pd.DataFrame
    events: Events
    health: pd.DataFrame
    server: list[dict[str, Any]]
    """Lines of server.jsonl in order of time."""
    levels: list[Level]
    limits: dict[str, TaskLimits]
    torn: int
    words_per_min: float = WORDS_PER_MIN
    """The reader's speed that stalls are told for."""

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The turns that count: sent in a window, highest attempt; failed and unfinished ones included."""
        return self.frame[self.frame["measured"]]

    @cached_property
    def conversations(self) -> pd.DataFrame:
        """The conversations that began in a window, one a row."""
        return conversations(self.frame)

    @property
    def manifest(self) -> dict[str, Any]:
        return self.run.manifest

    @property
    def emulated(self) -> bool:
        return bool(self.manifest.get("emulated"))

    def window_s(self, level: int | str) -> float:
        """Length of a level's window in seconds; of all windows together for "all"."""
        return sum(item.window_s for item in self.levels if level in ("all", item.index))


def study_run(run: RunDirectory, words_per_min: float = WORDS_PER_MIN) -> Study:
    """Read a run's records and measure every turn; words_per_min: the speed of a reader, for stalls."""
    limits = limits_of(run.manifest)
    turns = load_turns(run, limits, words_per_min)
    health = load_health(run)
    frame = _named_apart(corrected(turns.frame, run.manifest))
    levels = levels_of(run.manifest, frame)
    limits = {_RESERVED.get(task, task): item for task, item in limits.items()}
    frame = counted_once(placed(frame, levels))
    server = load_server(run)
    torn = run.torn + turns.unusable
    return Study(run, frame, turns.events, health, server, levels, limits, torn, words_per_min)


def limits_of(manifest: dict[str, Any]) -> dict[str, TaskLimits]:
    """The limits in force for each task that has any."""
    written = manifest.get("slo")
    numbers = {}
    for task, keys in written.items() if isinstance(written, dict) else ():
        if isinstance(keys, dict):
            numbers[str(task)] = {k: float(v) for k, v in keys.items() if _is_number(v)}
    return limits_by_task(numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _named_apart(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{key: frame[key].replace(_RESERVED) for key in ("task", "model")})
