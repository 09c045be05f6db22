"""What a sweep writes down (the state of its runs in sweep.json, an index of them at its end), and what it
reads of the runs themselves.
"""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from turnbench.formats import SweepEntry, SweepManifest
from turnbench.outcomes import of_class
from turnbench.run_directory import RunDirectory, RunError, read_run
from turnbench.sweep.plan import SweepPlan

INDEX_NAME = "index.csv"
_INDEX_KEYS = ("dir", "model", "precision", "scenario", "variant", "level", "repeat", "status", "exit_code",
               "started_at", "took_s", "turns", "ok", "planned", "output_tokens")  # fmt: skip


@dataclass
class SweepRecord:
    """The sweep's directory and the state of its runs."""

    folder: Path
    plan: SweepPlan
    runs: list[SweepEntry]

    def write(self) -> None:
        """Replace sweep.json whole, so that a kill leaves the old one or the new one."""
        content = SweepManifest(name=self.plan.name, cells=self.runs, plan=self.plan.model_dump())
        temporary = self.folder / "sweep.json.new"
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        os.replace(temporary, self.folder / "sweep.json")

    def settle(self, took_s: dict[str, float]) -> None:
        """Go on where a sweep stopped: runs that say they finished count, all others are put aside."""
        for run in self.runs:
            if status_of(self.folder / run.dir) == "finished":
                run.status, run.took_s = "finished", took_s.get(run.dir)
            else:
                self._put_aside(run.dir)

    def _put_aside(self, name: str) -> None:
        """A half-done run is kept, but where no analysis counts it: it is played again from its beginning."""
        if (self.folder / name).exists():
            number = 1
            while (aside := self.folder / "half-done" / f"{name}-{number}").exists():
                number += 1
            aside.parent.mkdir(exist_ok=True)
            (self.folder / name).rename(aside)

    def write_index(self) -> list[dict[str, Any]]:
        """index.csv: one row a run, with its turns counted; returns the rows."""
        rows = []
        for run in self.runs:
            row = dict.fromkeys(_INDEX_KEYS) | msgspec.structs.asdict(run)
            with suppress(RunError):  # it has no result, and its row says so
                row |= _counts(read_run(self.folder / run.dir))
            rows.append(row)
        with (self.folder / INDEX_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _INDEX_KEYS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return rows


def _counts(run: RunDirectory) -> dict[str, Any]:
    """Turns by their highest attempt, how many were well, and how many became due by the ledger."""
    last: dict[tuple[int, int], tuple[int, str]] = {}
    tokens = 0
    for turn in run.turns():
        place = turn.conversation, turn.turn
        last[place] = max(last.get(place, (0, "")), (turn.attempt, turn.outcome))
        tokens += turn.output_tokens or 0
    ledger = {line.worker: line.planned or 0 for line in run.health()}
    answered = of_class("answered")
    return {
        "exit_code": run.manifest.exit_code,
        "started_at": run.manifest.started_at,
        "turns": len(last),
        "ok": sum(outcome in answered for _, outcome in last.values()),
        "planned": sum(ledger.values()),
        "output_tokens": tokens,
    }


def status_of(folder: Path) -> str | None:
    """The status that the run itself recorded."""
    try:
        return read_run(folder).manifest.status
    except (RunError, OSError):
        return None


def has_level(folder: Path) -> bool:
    """Whether its first level has begun."""
    try:
        return bool(read_run(folder).manifest.levels)
    except (RunError, OSError):
        return False


def played_s_of(folder: Path) -> float | None:
    """From the start of its first level to the end of its last; None where it has not come to that."""
    try:
        levels = read_run(folder).manifest.levels
    except (RunError, OSError):
        return None
    if not levels or levels[0].start_ns is None or levels[-1].end_ns is None:
        return None
    return (levels[-1].end_ns - levels[0].start_ns) / 1e9
