"""A sweep: one run directory a cell (model, precision), read together as one result."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from analysis.checks.evidence import RANK
from analysis.compare.variants import Cells, Names, PlayedRun, named
from analysis.measures.cells import ALL
from analysis.summary import SUMMARY_FORMAT, Summary
from turnbench.formats import Finding, SweepEntry
from turnbench.run_directory import RunError, read_sweep


@dataclass(frozen=True)
class Sweep:
    """A sweep directory."""

    path: Path
    name: str
    cells: list[SweepEntry]


def sweep_at(path: Path) -> Sweep | None:
    """The sweep in a directory, None where it holds none; raises RunError for a file that isn't one."""
    manifest = read_sweep(path)
    if manifest is None:
        return None
    for cell in manifest.cells:
        _check_inside(path, cell.dir)
    return Sweep(path, manifest.name or path.name, manifest.cells)


def _check_inside(path: Path, folder: str) -> None:
    """A sweep's files are written into its cells, so no cell may lie anywhere else."""
    parts = PurePosixPath(folder).parts
    if not parts or ".." in parts or PurePosixPath(folder).is_absolute():
        raise RunError(f"{path}/sweep.json: cell directory {folder!r} is not inside the sweep; mend `dir`")


def missing(cell: SweepEntry, why: str) -> Summary:
    """The summary of a cell whose run can't be read."""
    remedy = "run the sweep again with --resume, which redoes the runs that are not finished"
    what = f"this run has no result (status {cell.status!r}): {why}"
    return {
        "run": cell.dir,
        "emulated": False,
        "partial": True,
        "verdict": {
            "status": "invalid",
            "findings": msgspec.to_builtins([Finding("invalid", "cell", what, remedy)]),
        },
        "levels": [],
        "cells": [],
        "client": {},
        "outcomes": {},
    }


def pooled(sweep: Sweep, summaries: list[Summary]) -> Summary:
    """One summary of all runs; levels, cells and findings also carry the `run` they belong to."""
    if not summaries:
        summaries = [missing(SweepEntry(dir=".", status="empty"), "the sweep has no cells")]
    statuses = [summary["verdict"]["status"] for summary in summaries]
    findings = _tagged(summaries, lambda summary: summary["verdict"]["findings"])
    outcomes: Counter[str] = Counter()
    for summary in summaries:
        outcomes.update(summary["outcomes"])
    found: Summary = {
        "format": SUMMARY_FORMAT,
        "run": sweep.name,
        "emulated": any(summary["emulated"] for summary in summaries),
        "partial": any(summary["partial"] for summary in summaries),
        "verdict": {"status": max(statuses, key=RANK.__getitem__), "findings": findings},
        "levels": _tagged(summaries, lambda summary: summary["levels"]),
        "cells": _tagged(summaries, lambda summary: summary["cells"]),
        "by_turn": _tagged(summaries, lambda summary: summary.get("by_turn", [])),
        "by_context": _tagged(summaries, lambda summary: summary.get("by_context", [])),
        "client": _worst_client([summary["client"] for summary in summaries if summary["client"]]),
        "outcomes": dict(outcomes),
        "runs": _tagged(summaries, lambda summary: summary.get("runs") or [_in_short(summary)]),
    }
    names = names_of(found)
    for cell in found["cells"]:
        name = names.get((cell["run"], cell["model"]))
        cell["name"] = name.one if name else cell["model"]
        cell["setting"] = name.setting if name else ""
    return found


def _in_short(summary: Summary) -> dict[str, Any]:
    """What is told of each run beside its levels and cells."""
    told = {key: summary.get(key) for key in ("emulated", "client", "curve")}
    return told | {"verdict": summary["verdict"]["status"], "variant": summary.get("variant", {})}


def names_of(summary: Summary) -> Names:
    """What each run's models are called; nothing for a single run, whose models need no other name."""
    loads = {(level.get("run"), level["index"]): level["load"] for level in summary["levels"]}
    played = []
    for run in summary.get("runs", []):
        cells: dict[str, Cells] = {}
        for cell in summary["cells"]:
            if cell["run"] == run["run"] and ALL not in (cell["model"], cell["task"], cell["level"]):
                load = loads[run["run"], cell["level"]]
                cells.setdefault(cell["model"], set()).add((cell["task"], load))
        played.append(PlayedRun(run["run"], run["variant"], cells))
    return named(played)


def _tagged(summaries: list[Summary], part: Any) -> list[dict[str, Any]]:
    """Each with the run that it is of; those of a sweep inside keep their own name after the sweep's."""
    return [
        item | {"run": f"{summary['run']}/{item['run']}" if "run" in item else summary["run"]}
        for summary in summaries
        for item in part(summary)
    ]


def _worst_client(clients: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest of each number over the runs; every clock that was used."""
    clocks = sorted({one for client in clients if client["clock"] for one in client["clock"].split(" and ")})
    numbers = list(dict.fromkeys(key for client in clients for key in client if key != "clock"))
    worst = {key: max((c[key] for c in clients if c.get(key) is not None), default=None) for key in numbers}
    return {"clock": " and ".join(clocks) or None} | worst
