"""How a conversation's waiting grows with its turns and its context, and how conversations end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.distribution import Sample, distribution
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import CUT, FAILED, PLAN, Study
from turnbench.formats import ConversationCounts, GrowthRow
from turnbench.stats.batches import slots_of
from turnbench.stats.bootstrap import Resampler
from turnbench.turns import Floats

_MOST_TURNS = 20
_LEAST_CONTEXT = 64
_MOSTLY = 0.5
"""Share of a prompt in the prefix cache from which its wait is that of a cached one."""
_UNKNOWN = -1


def by_turn(study: Study) -> list[GrowthRow]:
    """Waiting by the depth of the turn: its number in its conversation or, where that has branches, in the
    line of turns whose history it has."""
    rows = study.answered
    rows = rows[rows["depth"] <= _MOST_TURNS]
    found = []
    for key, part in rows.groupby(["level", "depth"]):
        level, turn = np.asarray(key, dtype=int).tolist()
        found.append(_row(part, level=level, turn=turn))
    return found


def by_context(study: Study) -> list[GrowthRow]:
    """The same by length of the prompt, in steps from a length to twice that; prompts that came mostly from a
    prefix cache apart from others, where usage says."""
    rows = study.answered
    known = rows[rows["prompt_tokens"].notna()]
    size = np.log2(np.maximum(floats(known["prompt_tokens"]), _LEAST_CONTEXT) / _LEAST_CONTEXT)
    cached = floats(known["cached_tokens"]) / np.maximum(floats(known["prompt_tokens"]), 1)
    kinds = np.where(np.isnan(cached), _UNKNOWN, cached >= _MOSTLY).astype(int)
    found = []
    for key, part in known.groupby(["level", size.astype(int), kinds]):
        level, power, kind = np.asarray(key, dtype=int).tolist()
        low = 0 if power == 0 else _LEAST_CONTEXT * 2**power
        names: dict[str, Any] = {"context_tokens": [low, _LEAST_CONTEXT * 2 ** (power + 1)]}
        if kind != _UNKNOWN:
            names["prefix"] = "cached" if kind else "computed"
        found.append(_row(part, level=level, **names))
    return found


def _row(rows: pd.DataFrame, **names: Any) -> GrowthRow:
    talks = pd.factorize(rows["talk"])[0]
    resampler = Resampler(int(talks.max()) + 1)
    found: dict[str, Any] = {}
    slots = slots_of(floats(rows["position"]))
    for name in ("ttft_ms", "ttg_ms"):
        values = floats(rows[name])
        known = ~np.isnan(values)
        found[name] = distribution(Sample(values[known], talks[known], slots[known]), resampler)
    for name in ("prompt_tokens", "cached_tokens", "expected_cached"):
        found[f"{name}_mean"] = _mean(floats(rows[name]))
    return GrowthRow(n=len(rows), **names, **found)


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def conversations_of(study: Study, level: Level) -> ConversationCounts:
    """What became of the conversations of a level. Only those that ended by plan have a duration."""
    mine = study.conversations[study.conversations["level"] == level.index]
    counts = mine["end"].value_counts()
    values = mine["duration_ms"][mine["end"] == PLAN].dropna().to_numpy(dtype=np.float64)
    return ConversationCounts(
        begun=len(mine),
        completed=int(counts.get(PLAN, 0)),
        failed=int(counts.get(FAILED, 0)),
        cut=int(counts.get(CUT, 0)),
        duration_ms=distribution(Sample(values, np.arange(len(values))), Resampler(max(len(values), 1))),
    )
