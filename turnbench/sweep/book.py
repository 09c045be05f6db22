"""What a sweep writes down: the state of its runs in sweep.json, and an index of them at its end."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from turnbench.run_directory import RunDirectory, RunError, read_run
from turnbench.sweep.cells import Cell
from turnbench.sweep.plan import SweepPlan

SWEEP_FORMAT = "turnbench-sweep/1"
INDEX_NAME = "index.csv"
_INDEX_KEYS = ("dir", "model", "precision", "scenario", "variant", "level", "repeat", "status", "exit_code",
               "started_at", "took_s", "turns", "ok", "planned", "output_tokens")  # fmt: skip


@dataclass
class Entry:
    """One run and what became of it: `took_s` without its server's start, `played_s` its levels alone."""

    cell: Cell
    status: str = "waiting"
    """waiting, running, finished, interrupted or failed."""
    took_s: float | None = None
    played_s: float | None = None


@dataclass
class Book:
    """The sweep's directory."""

    folder: Path
    plan: SweepPlan
    entries: list[Entry]

    def write(self) -> None:
        """Replace sweep.json whole, so that a kill leaves the old one or the new one."""
        cells = [asdict(e.cell) | {"status": e.status, "took_s": e.took_s} for e in self.entries]
        content = {"format": SWEEP_FORMAT, "name": self.plan.name, "cells": cells, "plan": asdict(self.plan)}
        temporary = self.folder / "sweep.json.new"
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self.folder / "sweep.json")

    def settle(self, took_s: dict[str, float]) -> None:
        """Go on where a sweep stopped: runs that say they finished count, all others are put aside."""
        for entry in self.entries:
            if status_of(self.folder / entry.cell.dir) == "finished":
                entry.status, entry.took_s = "finished", took_s.get(entry.cell.dir)
            else:
                put_aside(self.folder, entry.cell.dir)

    def write_index(self) -> list[dict[str, Any]]:
        """index.csv: one row a run, with its turns counted; returns the rows."""
        rows = [_index_row(self.folder, entry) for entry in self.entries]
        with (self.folder / INDEX_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _INDEX_KEYS)
            writer.writeheader()
            writer.writerows(rows)
        return rows


def _index_row(folder: Path, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_INDEX_KEYS)
    row |= asdict(entry.cell) | {"status": entry.status, "took_s": entry.took_s}
    try:
        return row | _counts(read_run(folder / entry.cell.dir))
    except RunError:
        return row


def _counts(run: RunDirectory) -> dict[str, Any]:
    """Turns by their highest attempt, how many were well, and how many became due by the ledger."""
    last: dict[tuple[int, int], tuple[int, str]] = {}
    tokens = 0
    for turn in run.turns():
        place = turn.conversation, turn.turn
        last[place] = max(last.get(place, (0, "")), (turn.attempt, turn.outcome))
        tokens += turn.output_tokens or 0
    ledger = {sample.get("worker"): sample.get("planned") or 0 for sample in run.health()}
    return {
        "exit_code": run.manifest.get("exit_code"),
        "started_at": run.manifest.get("started_at"),
        "turns": len(last),
        "ok": sum(outcome == "ok" for _, outcome in last.values()),
        "planned": sum(ledger.values()),
        "output_tokens": tokens,
    }


def status_of(folder: Path) -> str | None:
    """The status that the run itself recorded."""
    try:
        return str(read_run(folder).manifest.get("status"))
    except (RunError, OSError):
        return None


def has_level(folder: Path) -> bool:
    """Whether its first level has begun."""
    try:
        return bool(read_run(folder).manifest.get("levels"))
    except (RunError, OSError):
        return False


def played_s_of(folder: Path) -> float | None:
    """From the start of its first level to the end of its last; None where it has not come to that."""
    try:
        levels = read_run(folder).manifest["levels"]
        return float(levels[-1]["end_ns"] - levels[0]["start_ns"]) / 1e9
    except (RunError, OSError, LookupError, TypeError):
        return None


def put_aside(folder: Path, name: str) -> None:
    """A half-done run is kept, but where no analysis counts it: it is played again from its beginning."""
    if (folder / name).exists():
        number = 1
        while (aside := folder / "half-done" / f"{name}-{number}").exists():
            number += 1
        aside.parent.mkdir(exist_ok=True)
        (folder / name).rename(aside)
