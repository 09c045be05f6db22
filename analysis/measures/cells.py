"""The numbers of a cell: one model, task and level, or "all" of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.throughput import arrived_tokens
from analysis.stats.bootstrap import Resampler
from analysis.stats.percentiles import QUANTILES, allowed, effective_turns, percentile
from analysis.turns.conversations import kept_and_cut
from analysis.turns.frame import column_of, floats
from analysis.turns.gaps import Gaps, gaps_of
from analysis.turns.study import Study
from turnbench.metrics import METRICS, Metric
from turnbench.turns import Bools, Floats, Ints

ALL = "all"
MOST_COALESCED = 0.01

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
    ended_well, unfinished = ((rows["outcome"] == name).to_numpy() for name in ("ok", "unfinished"))
    ok, told = rows[ended_well], rows[ended_well | unfinished]
    ttg_s = floats(ok["ttg_ms"]).sum() / 1e3
    talks = pd.factorize(rows["talk"])[0]
    resampler = Resampler(int(talks.max()) + 1)
    cell: Cell = {
        "turns": len(rows),
        "conversations": int(talks.max()) + 1,
        "ok": len(ok),
        "failed": len(rows) - len(told),
        "unfinished": int(unfinished.sum()),
    }
    told_talks, open_ended = talks[ended_well | unfinished], unfinished[ended_well | unfinished]
    for name, metric in METRICS.items():
        if metric.per == "gap":
            gaps = gaps_of(study.events, ok.index.to_numpy(), talks[ended_well])
            cell[name] = _gap_distribution(gaps, coalesced_share(rows, study), resampler)
        else:
            cell[name] = distribution(*_values(told, metric, open_ended, told_talks), resampler)
    cell["tps"] = _rate(floats(ok["tokens"]).sum(), ttg_s)
    cell["chars_per_s"] = _rate(float(ok["chars"].sum()), ttg_s)
    cell["words_per_s"] = _rate(float(ok["words"].sum()), ttg_s)
    known = ok[ok["cached_tokens"].notna() & ok["prompt_tokens"].notna()]
    cell["cached_share"] = _rate(floats(known["cached_tokens"]).sum(), floats(known["prompt_tokens"]).sum())
    cell["fluidity"] = _rate(float(ok["fluid_met"].sum()), float(ok["fluid_total"].sum()))
    return cell


def _window_part(study: Study, rows: pd.DataFrame, names: dict[str, Any], tokens: pd.DataFrame) -> Cell:
    """What is told per second of the level's window."""
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


def _values(told: pd.DataFrame, metric: Metric, unfinished: Bools, talks: Ints) -> tuple[Floats, Ints]:
    """A metric's values: those of ok turns, and an infinitely bad one for each unfinished turn."""
    values = floats(told[column_of(metric.key)])
    values[unfinished] = -np.inf if metric.higher_is_better else np.inf
    known = ~np.isnan(values)
    return values[known], talks[known]


def distribution(values: Floats, clusters: Ints, resampler: Resampler) -> Cell:
    """`{n, mean, p50, p90, p95, p99, ci95}` with null where a number isn't allowed."""
    mean = float(values.mean()) if len(values) and np.isfinite(values).all() else None
    return _told(values, clusters, resampler, len(values), mean)


def _gap_distribution(gaps: Gaps, coalesced: float, resampler: Resampler) -> Cell:
    """As `distribution`, of the gaps between events; n and mean alone where too many events share a read."""
    if coalesced > MOST_COALESCED:
        return _told(gaps.values_ms[:0], gaps.clusters[:0], resampler, gaps.n, gaps.mean_ms)
    return _told(gaps.values_ms, gaps.clusters, resampler, gaps.n, gaps.mean_ms)


def _told(values: Floats, clusters: Ints, resampler: Resampler, n: int, mean: float | None) -> Cell:
    # n may be more than there are values, where those are a sample; its design effect is that of all.
    effective = effective_turns(values, clusters) * n / max(len(values), 1)
    names = allowed(effective) if len(values) else []
    told = {name: percentile(values, QUANTILES[name]) if name in names else None for name in QUANTILES}
    names = [name for name in names if told[name] is not None]
    found = resampler.intervals(values, clusters, names) if len(values) else {}
    ends = {name: found.get(name) for name in ("mean", *QUANTILES)}
    if mean is None:
        ends["mean"] = None
    return {"n": n, "mean": mean, **told, "ci95": ends}


def coalesced_share(rows: pd.DataFrame, study: Study) -> float:
    """Share of content events that shared a read with an earlier one, of all turns in these rows."""
    events = int(study.events.counts[rows.index.to_numpy()].sum())
    return float(rows["coalesced"].sum()) / events if events else 0.0


def _rate(above: float, below: float) -> float | None:
    return float(above / below) if below > 0 else None
