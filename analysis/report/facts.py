"""What the report draws that no summary holds: taken from a run while its tables are in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from analysis.report.raster import raster_of
from analysis.report.timeline import timelines_of
from analysis.turns.frame import floats
from analysis.turns.study import Study

SHARES = 101
"""Points of a distribution: from the least to the largest in steps of one percent."""
_MOST_LAGS = 600
_MOST_SCENARIO_CHARS = 50_000
_MOST_CELLS = 400


@dataclass(frozen=True)
class RunFacts:
    """What the report tells of one run besides its summary."""

    name: str
    manifest: dict[str, Any]
    scenario: str | None
    lags: list[dict[str, Any]]
    """Loop lag of each worker: `{worker, x: seconds, y: ms}`."""
    spreads: list[dict[str, Any]]
    """Distributions: `{model, task, load, n, ttft_ms, ttg_ms}`, each SHARES even quantiles."""
    timelines: list[dict[str, Any]]
    """One a level, see `timelines_of`."""
    raster: dict[str, Any] | None
    """The slowest turns, see `raster_of`."""


def facts_of(study: Study) -> RunFacts:
    """Gather them."""
    scenario = study.run.scenario_text()
    return RunFacts(
        study.run.path.resolve().name,
        msgspec.to_builtins(study.manifest),
        scenario and scenario[:_MOST_SCENARIO_CHARS],
        _lags(study),
        _spreads(study),
        timelines_of(study),
        raster_of(study),
    )


def _lags(study: Study) -> list[dict[str, Any]]:
    origin_ns = study.levels[0].start_ns
    known = study.health.dropna(subset=["loop_lag_ms"])
    found = []
    for worker, lines in known.groupby(known["worker"].astype(int)):
        kept = lines.iloc[:: -(-len(lines) // _MOST_LAGS)]
        seconds = (kept["t_ns"].astype("float64") - origin_ns) / 1e9
        lag = kept["loop_lag_ms"].round(2).tolist()
        found.append({"worker": worker, "x": seconds.round(1).tolist(), "y": lag})
    return found


def _spreads(study: Study) -> list[dict[str, Any]]:
    """Unfinished turns count as longer than any other: there the quantile is null."""
    rows = study.measured[study.measured["outcome"].isin(["ok", "unfinished"])]
    loads = {level.index: level.load for level in study.levels}
    found = []
    for keys, part in rows.groupby(["model", "task", "level"], sort=False):
        model, task, level = np.asarray(keys, dtype=object).tolist()
        names = {"model": str(model), "task": str(task), "load": loads.get(level, str(level)), "n": len(part)}
        unfinished = (part["outcome"] == "unfinished").to_numpy()
        told = {name: _quantiles(floats(part[name]), unfinished) for name in ("ttft_ms", "ttg_ms")}
        found.append(names | told)
    return found[:_MOST_CELLS]


def _quantiles(values: Any, unfinished: Any) -> list[float | None]:
    values[unfinished] = np.inf
    ordered = np.sort(values[~np.isnan(values)])
    if not len(ordered):
        return []
    places = np.round(np.linspace(0, len(ordered) - 1, SHARES)).astype(int)
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in ordered[places]]
