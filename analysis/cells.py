"""The numbers of a cell: one model, task and level, or "all" of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Ints, positions
from analysis.bootstrap import Resampler
from analysis.percentiles import QUANTILES, allowed, effective_turns, percentile
from analysis.study import Study
from analysis.throughput import arrived_tokens, conversations_kept
from analysis.turn_metrics import floats

ALL = "all"
DISTRIBUTIONS = (
    "ttft_ms",
    "ttfat_ms",
    "response_delay_ms",
    "ttg_ms",
    "ttg256_ms",
    "tpot_ms",
    "itl_ms",
    "decode_tokens_per_s",
    "request_tps",
    "stall_ms",
    "output_tokens",
)
_SOURCE = {"output_tokens": "tokens"}
_HIGHER_IS_BETTER = ("decode_tokens_per_s", "request_tps")
MOST_COALESCED = 0.01
_MOST_GAPS = 500_000

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
    models = list(dict.fromkeys(measured["model"]))
    for model in [*models, ALL] if len(models) > 1 else models:
        of_model = measured if model == ALL else measured[measured["model"] == model]
        tasks = list(dict.fromkeys(of_model["task"]))
        for level in [*sorted(set(of_model["level"])), ALL]:
            at_level = of_model if level == ALL else of_model[of_model["level"] == level]
            for task in [*tasks, ALL]:
                rows = at_level if task == ALL else at_level[at_level["task"] == task]
                if len(rows):
                    yield (model, task, level if level == ALL else int(level)), rows


def _turn_part(study: Study, rows: pd.DataFrame) -> Cell:
    """What follows from the cell's turns alone."""
    ok = rows[rows["outcome"] == "ok"]
    ttg_s = floats(ok["ttg_ms"]).sum() / 1e3
    talks = pd.factorize(rows["talk"])[0]
    resampler = Resampler(int(talks.max()) + 1)
    cell: Cell = {
        "turns": len(rows),
        "conversations": int(talks.max()) + 1,
        "ok": len(ok),
        "failed": len(rows) - len(ok) - int((rows["outcome"] == "unfinished").sum()),
        "unfinished": int((rows["outcome"] == "unfinished").sum()),
    }
    coalesced = coalesced_share(rows, study)
    for name in DISTRIBUTIONS:
        if name == "itl_ms":
            values, clusters = _gaps(study, rows, talks)
            telling = coalesced <= MOST_COALESCED
        else:
            values, clusters = _values(rows, name, talks)
            telling = True
        cell[name] = distribution(values, clusters, resampler, telling)
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
    kept = conversations_kept(study, rows)
    limited = rows["meets"].dropna()
    return {
        "aggregate_tps": _rate(float(mine["tokens"].sum()), window_s),
        "turn_goodput_per_s": _rate(float(limited.astype(int).sum()), window_s) if len(limited) else None,
        "conversation_goodput_per_s": _rate(kept[0], window_s) if kept else None,
        "conversations_cut": kept[1] if kept else None,
    }


def _values(rows: pd.DataFrame, name: str, talks: Ints) -> tuple[Floats, Ints]:
    """A metric's values: those of ok turns, and an infinitely bad one for each unfinished turn."""
    outcome = rows["outcome"].to_numpy()
    values = floats(rows[_SOURCE.get(name, name)])
    values[outcome == "unfinished"] = -np.inf if name in _HIGHER_IS_BETTER else np.inf
    keep = ((outcome == "ok") | (outcome == "unfinished")) & ~np.isnan(values)
    return values[keep], talks[keep]


def _gaps(study: Study, rows: pd.DataFrame, talks: Ints) -> tuple[Floats, Ints]:
    """Milliseconds between neighbouring events of the cell's ok turns, and their conversations."""
    ok = (rows["outcome"] == "ok").to_numpy()
    index = rows.index.to_numpy()[ok]
    counts = study.events.counts[index]
    at_us = study.events.at_us[positions(study.events.offsets, index)]
    if len(at_us) < 2:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    inner = np.ones(len(at_us), dtype=bool)
    inner[np.cumsum(counts)[counts > 0] - counts[counts > 0]] = False
    gaps = np.diff(at_us, prepend=0)[inner] / 1e3
    return gaps, np.repeat(talks[ok], counts)[inner]


def distribution(values: Floats, clusters: Ints, resampler: Resampler, telling: bool = True) -> Cell:
    """`{n, mean, p50, p90, p95, p99, ci95}` with null where a number isn't allowed.

    telling: False where n and mean alone say something true (gaps between events that share a read).
    """
    sample, groups = _thinned(values, clusters)
    # Values beyond the sample weigh as much as those in it: the design effect is the same.
    effective = effective_turns(sample, groups) * len(values) / max(len(sample), 1)
    names = allowed(effective) if telling else []
    mean = float(values.mean()) if len(values) and np.isfinite(values).all() else None
    told = {name: percentile(values, QUANTILES[name]) if name in names else None for name in QUANTILES}
    names = [name for name in names if told[name] is not None]
    found = resampler.intervals(sample, groups, names) if len(sample) else {}
    ends = {name: found.get(name) for name in ("mean", *QUANTILES)}
    if mean is None:
        ends["mean"] = None
    return {"n": len(values), "mean": mean, **told, "ci95": ends}


def _thinned(values: Floats, clusters: Ints) -> tuple[Floats, Ints]:
    """At most half a million values, picked evenly: enough for an interval, and it keeps memory flat."""
    step = -(-len(values) // _MOST_GAPS)
    return (values[::step], clusters[::step]) if step > 1 else (values, clusters)


def coalesced_share(rows: pd.DataFrame, study: Study) -> float:
    """Share of content events that shared a read with an earlier one, of all turns in these rows."""
    events = int(study.events.counts[rows.index.to_numpy()].sum())
    return float(rows["coalesced"].sum()) / events if events else 0.0


def _rate(above: float, below: float) -> float | None:
    return float(above / below) if below > 0 else None
