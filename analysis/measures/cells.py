"""The numbers of a cell: one model, task and level, or "all" of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
from turnbench.metrics import METRICS
from turnbench.outcomes import ANSWERED, STILL_RUNNING

ALL = "all"

Cell = dict[str, Any]


def cells_of(study: Study) -> list[Cell]:
    """Every cell with at least one measured turn, from the finest to all of them together."""
    tokens = arrived_tokens(study)
    made: dict[bytes, Cell] = {}
    found = []
    for keys, rows in _groups(study):
        same = rows.index.to_numpy().tobytes()
        names = dict(zip(("model", "task", "level"), keys, strict=True))
        if same not in made:  # with one task only, the cell over all tasks holds the same turns
            made[same] = _turn_part(study, rows)
        found.append(names | made[same] | _window_part(study, rows, names, tokens))
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


def _turn_part(study: Study, rows: pd.DataFrame) -> Cell:
    """What follows from the cell's turns alone."""
    answered = rows["outcome"].isin(ANSWERED).to_numpy()
    running = rows["outcome"].isin(STILL_RUNNING).to_numpy()
    ok, known = rows[answered], rows[answered | running]
    ttg_s = floats(ok["ttg_ms"]).sum() / 1e3
    talks = pd.factorize(rows["talk"])[0]
    resampler = Resampler(int(talks.max()) + 1)
    cell: Cell = {
        "turns": len(rows),
        "conversations": int(talks.max()) + 1,
        "ok": len(ok),
        "failed": len(rows) - len(known),
        "unfinished": int(running.sum()),
    }
    own_reads = coalesced_share(rows, study) <= MOST_COALESCED
    for name, metric in METRICS.items():
        if metric.per == "gap":
            cell[name] = gap_distribution(study, ok, talks[answered], resampler, own_reads)
            continue
        values = floats(known[column_of(name)])
        # A turn that was still running ranks worse than all that ended.
        values[running[answered | running]] = -np.inf if metric.higher_is_better else np.inf
        has = ~np.isnan(values)
        cell[name] = distribution(values[has], talks[answered | running][has], resampler)
    cell["tps"] = _rate(floats(ok["tokens"]).sum(), ttg_s)
    cell["chars_per_s"] = _rate(float(ok["chars"].sum()), ttg_s)
    cell["words_per_s"] = _rate(float(ok["words"].sum()), ttg_s)
    told = ok[ok["cached_tokens"].notna() & ok["prompt_tokens"].notna()]
    cell["cached_share"] = _rate(floats(told["cached_tokens"]).sum(), floats(told["prompt_tokens"]).sum())
    cell["fluidity"] = _rate(float(ok["fluid_met"].sum()), float(ok["fluid_total"].sum()))
    return cell


def _window_part(study: Study, rows: pd.DataFrame, names: dict[str, Any], tokens: pd.DataFrame) -> Cell:
    """What is counted per second of the level's window."""
    window_s = study.window_s(names["level"])
    mine = tokens
    for key, value in names.items():
        mine = mine if value == ALL else mine[mine[key] == value]
    talks = study.conversations[study.conversations.index.isin(rows["talk"].unique())]
    kept = kept_and_cut(talks if names["level"] == ALL else talks[talks["level"] == names["level"]])
    limited = rows["meets"].dropna()
    return {
        "aggregate_tps": _rate(float(mine["tokens"].sum()), window_s),
        "turn_goodput_per_s": _rate(float(limited.astype(int).sum()), window_s) if len(limited) else None,
        "conversation_goodput_per_s": _rate(kept[0], window_s) if kept else None,
        "conversations_cut": kept[1] if kept else None,
    }


def _rate(above: float, below: float) -> float | None:
    return float(above / below) if below > 0 else None
