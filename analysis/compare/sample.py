"""The measured turns of one or many runs side by side: what models are compared by."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from analysis.compare.variants import EXACT, Named, variant_of
from analysis.turns.study import Study
from turnbench.turns import Ints

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
"""What a model is called, see Named; beside them its `setting`."""


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
        return pd.DataFrame(columns=[*_KEPT, "load", "run", "precision", "exact", *_NAMES, "setting"])
    pooled = pd.concat(samples, ignore_index=True)
    order = pooled["load"].map({load: load_order(load) for load in pooled["load"].unique()}).to_numpy()
    if (np.diff(order) < 0).any():  # a long run is in order already, and need not be copied
        pooled = pooled.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
    for column in _NAMES:
        pooled[column] = pooled["model"]
    pooled["setting"] = ""
    for (run, model), found in (names or {}).items():
        mine = (pooled["run"] == run) & (pooled["model"] == model)
        told = [found.pool, found.speaker, found.family, found.setting]
        pooled.loc[mine, [*_NAMES, "setting"]] = told
    return pooled


def load_order(load: str) -> float:
    """A load in words as a number to sort by: 16, 2.5/s, level 3."""
    found = re.search(r"\d+(\.\d+)?", load)
    return float(found[0]) if found else 0.0


def clusters(rows: pd.DataFrame) -> Ints:
    """The conversation of each row, from 0; conversations of two runs are never one."""
    return np.asarray(rows.groupby(["run", "talk"], sort=False).ngroup(), dtype=np.int64)
