"""The numbers of a cell: one model, task and level, or "all" of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from analysis.measures.distribution import (
    MOST_COALESCED,
    coalesced_share,
    distribution,
    gap_distribution,
)
from analysis.measures.throughput import arrived_tokens
from analysis.stats.bootstrap import Resampler
from analysis.turns.frame import column_of, floats
from analysis.turns.study import Study, kept_and_cut
from turnbench.formats import CellSummary
from turnbench.metrics import METRICS
from turnbench.outcomes import ANSWERED, STILL_RUNNING

ALL = "all"


def cells_of(study: Study) -> list[CellSummary]:
    """Every cell with at least one measured turn, from the finest to all of them together."""
    tokens = arrived_tokens(study)
    made: dict[bytes, CellSummary] = {}
    found = []
    for (model, task, level), rows in _groups(study):
        same = rows.index.to_numpy().tobytes()
        if same not in made:  # with one task only, the cell over all tasks holds the same turns
            made[same] = _of_turns(study, rows)
        cell = msgspec.structs.replace(made[same], model=model, task=task, level=level)
        _add_rates(cell, study, rows, tokens)
        found.append(cell)
    return found


def _groups(study: Study) -> Iterator[tuple[tuple[Any, Any, Any], pd.DataFrame]]:
    measured = study.measured
    models = measured["model"].unique().tolist()
    for model in [*models, ALL] if len(models) > 1 else models:
        of_model = measured if model == ALL else measured[measured["model"] == model]
        tasks = of_model["task"].unique().tolist()
        for level in [*sorted(set(of_model["level"])), ALL]:
            at_level = of_model if level == ALL else of_model[of_model["level"] == level]
            for task in [*tasks, ALL]:
                rows = at_level if task == ALL else at_level[at_level["task"] == task]
                if len(rows):
                    yield (model, task, level if level == ALL else int(level)), rows


def _of_turns(study: Study, rows: pd.DataFrame) -> CellSummary:
    """What follows from the cell's turns alone; it has no names yet."""
    answered = rows["outcome"].isin(ANSWERED).to_numpy()
    running = rows["outcome"].isin(STILL_RUNNING).to_numpy()
    ok, known = rows[answered], rows[answered | running]
    talks = pd.factorize(rows["talk"])[0]
    resampler = Resampler(int(talks.max()) + 1)
    own_reads = coalesced_share(rows, study) <= MOST_COALESCED
    distributions = {}
    for key, metric in METRICS.items():
        if metric.per == "gap":
            distributions[key] = gap_distribution(study, ok, talks[answered], resampler, own_reads)
            continue
        values = floats(known[column_of(key)])
        # A turn that was still running ranks worse than all that ended.
        values[running[answered | running]] = -np.inf if metric.higher_is_better else np.inf
        has = ~np.isnan(values)
        distributions[key] = distribution(values[has], talks[answered | running][has], resampler)
    ttg_s = floats(ok["ttg_ms"]).sum() / 1e3
    cached = ok[ok["cached_tokens"].notna() & ok["prompt_tokens"].notna()]
    return CellSummary(
        model="",
        task="",
        level=ALL,
        turns=len(rows),
        conversations=int(talks.max()) + 1,
        ok=len(ok),
        failed=len(rows) - len(known),
        unfinished=int(running.sum()),
        values=distributions,
        tps=_rate(floats(ok["tokens"]).sum(), ttg_s),
        chars_per_s=_rate(float(ok["chars"].sum()), ttg_s),
        words_per_s=_rate(float(ok["words"].sum()), ttg_s),
        cached_share=_rate(floats(cached["cached_tokens"]).sum(), floats(cached["prompt_tokens"]).sum()),
        fluidity=_rate(float(ok["fluid_met"].sum()), float(ok["fluid_total"].sum())),
    )


def _add_rates(cell: CellSummary, study: Study, rows: pd.DataFrame, tokens: pd.DataFrame) -> None:
    """What is counted per second of the level's window."""
    window_s = study.window_s(cell.level)
    mine = tokens
    for column, value in (("model", cell.model), ("task", cell.task), ("level", cell.level)):
        mine = mine if value == ALL else mine[mine[column] == value]
    cell.aggregate_tps = _rate(float(mine["tokens"].sum()), window_s)
    limited = rows["meets"].dropna()
    if len(limited):
        cell.turn_goodput_per_s = _rate(float(limited.astype(int).sum()), window_s)
    talks = study.conversations[study.conversations.index.isin(rows["talk"].unique())]
    if kept := kept_and_cut(talks if cell.level == ALL else talks[talks["level"] == cell.level]):
        cell.conversation_goodput_per_s = _rate(kept[0], window_s)
        cell.conversations_cut = kept[1]


def _rate(above: float, below: float) -> float | None:
    return float(above / below) if below > 0 else None
