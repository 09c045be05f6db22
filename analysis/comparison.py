"""Everything that tells models apart: orders, shares, swaps and effects, a task and load at a time."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.compare.effects import effects_of
from analysis.compare.ranking import ranking_of
from analysis.compare.shares import shares_of
from analysis.compare.swap import swap_of
from analysis.measures.cells import ALL
from analysis.tables.ranking_words import in_words


def comparison_of(pool: pd.DataFrame) -> dict[str, Any] | None:
    """`{cells, effects, words}` of several models' turns; None where there is but one model.

    Models are compared under one setting (precision, hardware, length of answers) where each setting has
    two models or more; else whatever was played is compared.
    """
    if pool["name"].nunique() < 2:
        return None
    settings = {str(name): part for name, part in pool.groupby("setting", sort=True)}
    if min(part["model"].nunique() for part in settings.values()) < 2:
        settings = {"": pool}
    cells = [cell for setting, part in settings.items() for cell in _cells(part, setting)]
    first = next(iter(settings.values()))
    if not cells:
        return None
    words = in_words([cell for cell in cells if cell["setting"] == cells[0]["setting"]])
    return {"cells": cells, "effects": effects_of(first), "words": words}


def _cells(pool: pd.DataFrame, setting: str) -> list[dict[str, Any]]:
    cells = []
    for load in dict.fromkeys(pool["load"]):
        at_load = pool[pool["load"] == load]
        tasks = list(dict.fromkeys(at_load["task"]))
        for task in [*tasks, *[ALL] * (len(tasks) > 1)]:
            rows = at_load if task == ALL else at_load[at_load["task"] == task]
            found = ranking_of(rows)
            if found is not None:
                names = {"task": task, "load": load, "setting": setting}
                cells.append(names | found | {"shares": shares_of(rows), "swap": swap_of(rows)})
    return cells
