"""Everything that tells models apart: orders, shares, swaps and effects, a task and load at a time."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.cells import ALL
from analysis.effects import effects_of
from analysis.ranking import ranking_of
from analysis.ranking_words import in_words
from analysis.shares import shares_of
from analysis.swap import swap_of


def comparison_of(pool: pd.DataFrame) -> dict[str, Any] | None:
    """`{cells, effects, words}` of several models' turns; None where there is but one model."""
    if pool["name"].nunique() < 2:
        return None
    cells = []
    for load in dict.fromkeys(pool["load"]):
        at_load = pool[pool["load"] == load]
        tasks = list(dict.fromkeys(at_load["task"]))
        for task in [*tasks, *[ALL] * (len(tasks) > 1)]:
            rows = at_load if task == ALL else at_load[at_load["task"] == task]
            found = ranking_of(rows)
            if found is not None:
                names = {"task": task, "load": load}
                cells.append(names | found | {"shares": shares_of(rows), "swap": swap_of(rows)})
    return {"cells": cells, "effects": effects_of(pool), "words": in_words(cells)} if cells else None
