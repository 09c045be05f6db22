"""The study's own table: how much longer a task takes than the model's quickest one.

Conde et al. (IEEE Computer 2024) set time to generate per task side by side, at natural length and for 256
tokens. Here: mean TTG of a task over that of the task which was quickest for the same model and load.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.sample import clusters
from analysis.stats.bootstrap import LEAST_CONVERSATIONS, Resampler, conversations_in
from analysis.turns.frame import floats
from turnbench.turns import Bools, Floats

LENGTHS = {"natural": "ttg_ms", "at_256": "ttg256_ms"}
STUDY_RATIO = (1.3, 1.4)
"""What a summary of the study reports for its complex tasks at 256 tokens: 30 to 40 % more."""

Ratio = dict[str, Any]


def ratios_of(pool: pd.DataFrame) -> list[Ratio]:
    """A row a model, load and task: `name load task`, and `{n, time_ms, ratio, ci95, quickest}` a length.

    Natural length is that of answers that were let end; 256 tokens are told of answers that were made to
    have an exact length, where there are any, else of those that were longer. A length is None where no
    turn of the task has it (256 tokens are never extrapolated) or where a turn never ended, so that its
    time isn't known. Nothing where a model played one task only at a load.
    """
    found = []
    for (name, load), rows in pool.groupby(["speaker", "load"], sort=False):
        tasks = list(dict.fromkeys(rows["task"]))
        if len(tasks) < 2:
            continue
        exact = rows["exact"].to_numpy(dtype=bool)
        of = {"natural": rows[~exact], "at_256": rows[exact] if exact.any() else rows}
        told = {length: _ratios(of[length], tasks, column) for length, column in LENGTHS.items()}
        for task in tasks:
            names = {"name": str(name), "load": str(load), "task": str(task)}
            found.append(names | {length: told[length].get(task) for length in LENGTHS})
    return [row for row in found if any(row[length] for length in LENGTHS)]


def _ratios(rows: pd.DataFrame, tasks: list[str], column: str) -> dict[str, Ratio]:
    values = floats(rows[column])
    values[(rows["outcome"] == "unfinished").to_numpy()] = np.inf
    known = ~np.isnan(values)
    rows, values = rows[known], values[known]
    of_task = np.stack([(rows["task"] == task).to_numpy() for task in tasks], axis=1)
    counts = of_task.sum(axis=0)
    sums = np.where(of_task, values[:, None], 0.0).sum(axis=0)
    means = np.divide(sums, counts, out=np.full(len(tasks), np.nan), where=counts > 0)
    if len(rows) == 0 or np.isfinite(means).sum() < 2:
        return {}
    quickest = int(np.nanargmin(means))
    ends = _ends(rows, values, of_task, quickest)
    return {
        task: {
            "n": int(counts[i]),
            "time_ms": float(means[i]),
            "ratio": float(means[i] / means[quickest]),
            "ci95": ends[i],
            "quickest": tasks[quickest],
        }
        for i, task in enumerate(tasks)
        if np.isfinite(means[i])
    }


def _ends(rows: pd.DataFrame, values: Floats, of_task: Bools, quickest: int) -> list[list[float] | None]:
    """Interval of each task's ratio, tasks resampled together: one conversation may play several."""
    talks = clusters(rows)
    enough = [conversations_in(talks[mine]) >= LEAST_CONVERSATIONS for mine in of_task.T]
    if not (len(values) and enough[quickest]):
        return [None] * len(enough)
    times = np.where(of_task & np.isfinite(values)[:, None], values[:, None], 0.0)
    resampler = Resampler(int(talks.max()) + 1)
    sums = resampler.sums(np.concatenate([times, of_task.astype(float)], axis=1), talks)
    above, below = np.split(sums, 2, axis=1)
    means = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    found: list[list[float] | None] = []
    for i, known in enumerate(enough):
        ends = resampler.ends(means[:, i] / means[:, quickest]) if known and i != quickest else [None, None]
        found.append(None if None in ends else [float(end or 0) for end in ends])
    return found
