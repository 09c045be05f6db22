"""One run, read and measured: what cells, verdict, tables and report are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis.turns.conversations import conversations
from analysis.turns.frame import load_health, load_turns
from analysis.turns.levels import Level, corrected, counted_once, levels_of, placed
from turnbench.formats import RunManifest, ServerSample
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
    server: list[ServerSample]
    """The server's own metrics in order of time."""
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
    def manifest(self) -> RunManifest:
        return self.run.manifest

    @property
    def emulated(self) -> bool:
        return self.manifest.emulated

    def window_s(self, level: int | str) -> float:
        """Length of a level's window in seconds; of all windows together for "all"."""
        return sum(item.window_s for item in self.levels if level in ("all", item.index))


def study_run(run: RunDirectory, words_per_min: float = WORDS_PER_MIN) -> Study:
    """Read a run's records and measure every turn; words_per_min: the speed of a reader, for stalls."""
    limits = limits_by_task(run.manifest.slo)
    turns = load_turns(run, limits, words_per_min)
    health = load_health(run)
    frame = _named_apart(corrected(turns.frame, run.manifest.workers))
    levels = levels_of(run.manifest, frame)
    limits = {_RESERVED.get(task, task): item for task, item in limits.items()}
    frame = counted_once(placed(frame, levels))
    server = sorted(run.server(), key=lambda sample: sample.t_ns)
    torn = run.torn + turns.unusable
    return Study(run, frame, turns.events, health, server, levels, limits, torn, words_per_min)


def _named_apart(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{key: frame[key].replace(_RESERVED) for key in ("task", "model")})
