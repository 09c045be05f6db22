"""One run, read and measured: what cells, verdict, tables and report are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.turns.frame import floats, load_health, load_turns
from analysis.turns.levels import NO_LEVEL, Level, corrected, counted_once, levels_of, placed
from turnbench.formats import RunManifest, ServerSample
from turnbench.limits import TaskLimits, limits_by_task
from turnbench.outcomes import ANSWERED, NOT_MEASURED, STILL_RUNNING
from turnbench.run_directory import RunDirectory
from turnbench.turns import WORDS_PER_MIN, Events

PLAN, FAILED, CUT = "plan", "failed", "cut"
"""How a conversation ended."""
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
    """The reader's speed that stall time is for."""

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The turns that count: sent in a window, highest attempt; failed and unfinished ones included."""
        return self.frame[self.frame["measured"]]

    @cached_property
    def answered(self) -> pd.DataFrame:
        """Measured turns that ended well, with `expected_cached`: what the one before left in a prefix cache.

        That is its prompt and its answer; nothing for a first turn. NaN where that one isn't known, and
        for a sub-agent's first: its prompt may begin like another's of its conversation.
        """
        frame = self._in_order
        talk, turn, before = (frame[name].to_numpy(dtype=np.int64) for name in ("talk", "turn", "continues"))
        numbers, ranks = np.unique(turn, return_inverse=True)  # any number may stand in a record
        places, wanted = talk * len(numbers) + ranks, talk * len(numbers) + np.searchsorted(numbers, before)
        at = np.minimum(np.searchsorted(places, wanted), max(len(places) - 1, 0))
        left = floats(frame["prompt_tokens"]) + floats(frame["tokens"])
        follows = (before > 0) & (talk[at] == talk) & (turn[at] == before)
        expected = np.where(turn == 1, 0.0, np.where(follows, left[at], np.nan))
        mine = (frame["measured"] & frame["outcome"].isin(ANSWERED)).to_numpy()
        return frame[mine].assign(expected_cached=expected[mine])

    @cached_property
    def conversations(self) -> pd.DataFrame:
        """The conversations that began in a window, one a row."""
        return _conversations(self._in_order)

    @cached_property
    def _in_order(self) -> pd.DataFrame:
        """The turns that count, conversation by conversation."""
        return self.frame[self.frame["counts"]].sort_values(["talk", "turn"])

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
    frame = corrected(turns.frame, run.manifest.workers)
    frame = frame.assign(**{key: frame[key].replace(_RESERVED) for key in ("task", "model")})
    levels = levels_of(run.manifest, frame)
    limits = {_RESERVED.get(task, task): item for task, item in limits.items()}
    frame = counted_once(placed(frame, levels))
    server = sorted(run.server(), key=lambda sample: sample.t_ns)
    torn = run.torn + turns.unusable
    return Study(run, frame, turns.events, health, server, levels, limits, torn, words_per_min)


def _conversations(turns: pd.DataFrame) -> pd.DataFrame:
    """A row for each conversation (`talk`) that began in a level's window.

    Columns: `level end keeps duration_ms position`.

    A conversation belongs to the level in which its first turn was sent. It ends by `plan` where its last
    turn by plan ended well, as `failed` where a turn did not, else it was `cut`: by the level's end, in
    mid-turn or while the person thought. `keeps`: every turn that has limits met them all; null where none
    has any. `duration_ms`: from when its first turn was due to the end of its last. One with branches ends by
    plan where all of its turns did, and as failed where one of them did.
    """
    first = turns.drop_duplicates("talk").set_index("talk")
    last = turns.drop_duplicates("talk", keep="last").set_index("talk")
    begun = (first["turn"] == 1) & first["in_window"] & (first["level"] != NO_LEVEL)
    well = last["outcome"].isin(ANSWERED).to_numpy()
    was_cut = well | last["outcome"].isin([*STILL_RUNNING, *NOT_MEASURED])
    end = np.where(well & last["last"], PLAN, np.where(was_cut, CUT, FAILED))
    branched = turns[turns["branch"].notna()]
    if len(branched):
        ended = _ends_of_branched(branched)
        end = ended["end"].reindex(last.index).fillna(pd.Series(end, index=last.index)).to_numpy()
        last["end_ns"] = ended["end_ns"].reindex(last.index).fillna(last["end_ns"])
    limited = turns[turns["meets"].notna()]
    keeps = limited["meets"].astype(bool).groupby(limited["talk"]).all().astype("boolean")
    duration_ms = floats(last["end_ns"] - first["due_ns"]) / 1e6
    columns = {
        "level": first["level"],
        "end": end,
        "keeps": keeps,
        "duration_ms": duration_ms,
        "position": first["position"],
    }
    return pd.DataFrame(columns, index=first.index)[begun]


def _ends_of_branched(turns: pd.DataFrame) -> pd.DataFrame:
    """`end` and `end_ns` of conversations with branches, where the turn of the highest number says little."""
    well = turns["outcome"].isin(ANSWERED)
    failed = ~(well | turns["outcome"].isin([*STILL_RUNNING, *NOT_MEASURED]))
    whole = turns.groupby("talk").agg(count=("turn", "size"), highest=("turn", "max"), last=("last", "max"))
    planned = (whole["count"] == whole["highest"]) & whole["last"] & well.groupby(turns["talk"]).all()
    ends = np.where(failed.groupby(turns["talk"]).any(), FAILED, np.where(planned, PLAN, CUT))
    return pd.DataFrame({"end": ends, "end_ns": turns.groupby("talk")["end_ns"].max()}, index=whole.index)


def kept_and_cut(mine: pd.DataFrame) -> tuple[int, int] | None:
    """(conversations that ended by plan within all limits, conversations that were cut).

    None where no turn has limits: then none can be good.
    """
    limited = mine[mine["keeps"].notna()]
    if limited.empty:
        return None
    kept = (limited["end"] == PLAN) & limited["keeps"].astype(bool)
    return int(kept.sum()), int((limited["end"] == CUT).sum())
