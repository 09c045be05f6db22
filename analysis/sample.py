"""The measured turns of one or many runs side by side: what models are compared by."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.arrays import Ints
from analysis.study import Study

_KEPT = (
    "model",
    "task",
    "level",
    "talk",
    "turn",
    "outcome",
    "ttft_ms",
    "tpot_ms",
    "ttg_ms",
    "ttg256_ms",
    "tokens",
    "later_tokens",
    "words",
)


def sample_of(study: Study, run: str) -> pd.DataFrame:
    """One row a measured turn that ended well or not at all; `load` is its level in words."""
    rows = study.measured
    rows = rows[rows["outcome"].isin(["ok", "unfinished"])]
    loads = {level.index: level.load for level in study.levels}
    return rows[list(_KEPT)].assign(load=rows["level"].map(loads), run=run)


def side_by_side(samples: list[pd.DataFrame]) -> pd.DataFrame:
    """One table of all runs. `name` tells models apart, by their runs where several played one model."""
    samples = [sample for sample in samples if len(sample)]
    if not samples:
        return pd.DataFrame(columns=[*_KEPT, "load", "run", "name"])
    pooled = pd.concat(samples, ignore_index=True)
    runs = pooled.groupby("model")["run"].transform("nunique")
    pooled["name"] = np.where(runs > 1, pooled["run"], pooled["model"])
    return pooled


def clusters(rows: pd.DataFrame) -> Ints:
    """The conversation of each row, from 0; conversations of two runs are never one."""
    return np.asarray(rows.groupby(["run", "talk"], sort=False).ngroup(), dtype=np.int64)
