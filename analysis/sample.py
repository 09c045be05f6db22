"""The measured turns of one or many runs side by side: what models are compared by."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.arrays import Ints
from analysis.study import Study
from analysis.variants import EXACT, Named, variant_of

Names = dict[tuple[str, str], Named]

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
_NAMES = ("name", "speaker", "family")


def sample_of(study: Study, run: str) -> pd.DataFrame:
    """One row a measured turn that ended well or not at all; `load` is its level in words."""
    rows = study.measured
    rows = rows[rows["outcome"].isin(["ok", "unfinished"])]
    loads = {level.index: level.load for level in study.levels}
    variant = variant_of(study.manifest)
    sample = rows[list(_KEPT)].assign(load=rows["level"].map(loads), run=run)
    return sample.assign(precision=variant["precision"], exact=bool(variant[EXACT]))


def side_by_side(samples: list[pd.DataFrame], names: Names | None = None) -> pd.DataFrame:
    """One table of all runs. `names` of each (run, model); without them, the model's own.

    `name` tells models apart; `speaker` is the same at any length of answers, `family` at any precision.
    """
    samples = [sample for sample in samples if len(sample)]
    if not samples:
        return pd.DataFrame(columns=[*_KEPT, "load", "run", "precision", "exact", *_NAMES])
    pooled = pd.concat(samples, ignore_index=True)
    for column in _NAMES:
        pooled[column] = pooled["model"]
    for (run, model), found in (names or {}).items():
        mine = (pooled["run"] == run) & (pooled["model"] == model)
        pooled.loc[mine, list(_NAMES)] = [found.pool, found.speaker, found.family]
    return pooled


def clusters(rows: pd.DataFrame) -> Ints:
    """The conversation of each row, from 0; conversations of two runs are never one."""
    return np.asarray(rows.groupby(["run", "talk"], sort=False).ngroup(), dtype=np.int64)
