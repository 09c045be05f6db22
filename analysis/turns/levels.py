"""Which level a turn belongs to, whether it is measured, and which of its attempts counts."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np
import pandas as pd

from turnbench.formats import LevelEntry, RunManifest, UntilEntry, WorkerEntry
from turnbench.outcomes import NOT_MEASURED
from turnbench.turns import Bools, Ints

NO_LEVEL = -1


@dataclass(frozen=True)
class Level:
    """One load. Times are nanoseconds since the Unix epoch, on the clock of the run directory's writer."""

    index: int
    users: int | None
    arrival_rate_per_s: float | None
    start_ns: int
    window_start_ns: int
    window_end_ns: int
    end_ns: int
    whole: bool
    """Whether the window was begun and ended as planned; if not, its limits are what there is."""
    planned_arrivals: int | None = None
    """Open loop: how many conversations the plan has due in the window, where it fixes their number."""
    until: UntilEntry | None = None
    """What --until reached."""

    @property
    def window_s(self) -> float:
        return max(self.window_end_ns - self.window_start_ns, 0) / 1e9

    @property
    def amount(self) -> float:
        """The load as a number to sort by: people, or conversations per second."""
        return float(self.users or self.arrival_rate_per_s or 0)

    @property
    def load(self) -> str:
        """The load in words for a table."""
        if self.users is not None:
            return f"{self.users}"
        return f"{self.arrival_rate_per_s:g}/s" if self.arrival_rate_per_s else f"level {self.index}"


def corrected(frame: pd.DataFrame, workers: list[WorkerEntry]) -> pd.DataFrame:
    """The table with every worker's `*_ns` on the clock of the run's writer."""
    offsets = {worker.index: worker.clock_offset_ns or 0 for worker in workers}
    shift = frame["worker"].map(offsets).fillna(0).astype("int64")
    times = {name: frame[name] - shift for name in ("due_ns", "sent_ns", "head_ns", "end_ns")}
    return frame.assign(**times)


def levels_of(manifest: RunManifest, frame: pd.DataFrame) -> list[Level]:
    """The levels of a run; where it wrote none, one that spans all records."""
    last_ns = _last_ns(manifest, frame)
    first_ns = int(frame["due_ns"].min()) if len(frame) else last_ns
    return [_level(entry, first_ns, last_ns) for entry in manifest.levels or [LevelEntry()]]


def _level(entry: LevelEntry, first_ns: int, last_ns: int) -> Level:
    start_ns = first_ns if entry.start_ns is None else entry.start_ns
    end_ns = max(last_ns + 1 if entry.end_ns is None else entry.end_ns, start_ns)
    window_start_ns = start_ns if entry.window_start_ns is None else entry.window_start_ns
    window_end_ns = end_ns if entry.window_end_ns is None else entry.window_end_ns
    return Level(
        index=entry.index,
        users=entry.users if entry.arrival_rate_per_s is None else None,
        arrival_rate_per_s=entry.arrival_rate_per_s,
        start_ns=start_ns,
        window_start_ns=window_start_ns,
        window_end_ns=max(window_end_ns, window_start_ns),
        end_ns=end_ns,
        whole=None not in (entry.window_start_ns, entry.window_end_ns),
        planned_arrivals=None if entry.planned_arrivals is msgspec.UNSET else entry.planned_arrivals,
        until=entry.until or None,
    )


def _last_ns(manifest: RunManifest, frame: pd.DataFrame) -> int:
    """When the run ended: its last record, or `ended_at` if that is later."""
    seen = [int(frame[name].max()) for name in ("due_ns", "sent_ns", "end_ns") if frame[name].notna().any()]
    with contextlib.suppress(ValueError):  # no time: it still runs, or was killed
        seen.append(int(datetime.fromisoformat(manifest.ended_at or "").timestamp() * 1e9))
    return max(seen, default=0)


def placed(frame: pd.DataFrame, levels: list[Level]) -> pd.DataFrame:
    """Adds `moment_ns` (sent, or due where it was never sent), `level`, `in_window`, and `position`: where in
    its level's window that was, from 0 to 1."""
    moment = frame["sent_ns"].fillna(frame["due_ns"]).to_numpy(dtype=np.int64)
    level = np.full(len(frame), NO_LEVEL)
    in_window = np.zeros(len(frame), dtype=bool)
    position = np.full(len(frame), np.nan)
    for item in levels:
        inside = (moment >= item.start_ns) & (moment < item.end_ns)
        level[inside] = item.index
        in_window |= inside & (moment >= item.window_start_ns) & (moment < item.window_end_ns)
        if item.window_s > 0:
            position[inside] = (moment[inside] - item.window_start_ns) / (item.window_s * 1e9)
    return frame.assign(moment_ns=moment, level=level, in_window=in_window, position=position)


def counted_once(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds `talk`, `counts` (the highest attempt of its turn), `measured` and `first_late_ms`.

    A turn belongs to the level and the window in which its first attempt was sent: by a later one, turns
    that were hard to get through would leave the measurement. `first_late_ms` is sent - due of that attempt:
    how late the client itself was. A record that stands there twice (a batch delivered again) counts once.
    """
    keys = ["conversation", "turn", "due_ns", "attempt"]
    order = frame.reset_index(drop=True).sort_values([*keys, "moment_ns"], kind="stable")
    again = order.duplicated(keys).to_numpy()
    conversation, turn = (order[name].to_numpy() for name in ("conversation", "turn"))
    attempt = order["attempt"].to_numpy()
    new_turn = _changes(conversation) | _changes(turn) | (np.diff(attempt, prepend=0) <= 0) & ~again
    group = np.cumsum(new_turn)
    late_ms = ((order["sent_ns"] - order["due_ns"]) / 1e6).to_numpy(dtype=float, na_value=np.nan)
    last = np.append(group[1:] != group[:-1], True) if len(group) else np.zeros(0, dtype=bool)
    first = np.flatnonzero(new_turn)[group - 1]
    placed_back = pd.DataFrame({"counts": last, "first_late_ms": late_ms[first]}, index=order.index)
    for name in ("level", "in_window"):
        placed_back[name] = order[name].to_numpy()[first]
    placed_back = placed_back.sort_index()
    out = frame.assign(**{str(name): placed_back[name].to_numpy() for name in placed_back})
    out["talk"] = pd.factorize(out["conversation"])[0]
    out["measured"] = out["counts"] & out["in_window"] & ~out["outcome"].isin(NOT_MEASURED)
    return out


def _changes(values: Ints) -> Bools:
    return np.asarray(np.diff(values, prepend=values[:1] - 1) != 0)
