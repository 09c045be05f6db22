"""How conversations end, how long they last, and which of them kept every limit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.turns.frame import floats
from analysis.turns.levels import NO_LEVEL
from turnbench.outcomes import ANSWERED, NOT_MEASURED, STILL_RUNNING

PLAN, FAILED, CUT = "plan", "failed", "cut"


def conversations(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each conversation (`talk`) that began in a level's window: `level end keeps duration_ms`.

    A conversation belongs to the level in which its first turn was sent. It ends by `plan` where its last
    turn by plan ended well, as `failed` where a turn did not, else it was `cut`: by the level's end, in
    mid-turn or while the person thought. `keeps`: every turn that has limits met them all; null where none
    has any. `duration_ms`: from when its first turn was due to the end of its last.
    """
    turns = frame[frame["counts"]].sort_values(["talk", "turn"])
    first = turns.drop_duplicates("talk").set_index("talk")
    last = turns.drop_duplicates("talk", keep="last").set_index("talk")
    begun = (first["turn"] == 1) & first["in_window"] & (first["level"] != NO_LEVEL)
    well = last["outcome"].isin(ANSWERED).to_numpy()
    was_cut = well | last["outcome"].isin([*STILL_RUNNING, *NOT_MEASURED])
    end = np.where(well & last["last"], PLAN, np.where(was_cut, CUT, FAILED))
    limited = turns[turns["meets"].notna()]
    keeps = limited["meets"].astype(bool).groupby(limited["talk"]).all().astype("boolean")
    duration_ms = floats(last["end_ns"] - first["due_ns"]) / 1e6
    columns = {"level": first["level"], "end": end, "keeps": keeps, "duration_ms": duration_ms}
    return pd.DataFrame(columns, index=first.index)[begun]


def kept_and_cut(mine: pd.DataFrame) -> tuple[int, int] | None:
    """(conversations that ended by plan within all limits, conversations that were cut).

    None where no turn has limits: then none can be good.
    """
    limited = mine[mine["keeps"].notna()]
    if limited.empty:
        return None
    kept = (limited["end"] == PLAN) & limited["keeps"].astype(bool)
    return int(kept.sum()), int((limited["end"] == CUT).sum())
