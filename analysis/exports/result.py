"""What every export is made from: a run that was read, measured and summarised; and how an export fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.summary import summarise
from analysis.turns.levels import Level
from analysis.turns.study import Study, study_run
from turnbench import __version__
from turnbench.extras import missing
from turnbench.formats import Summary
from turnbench.run_directory import read_run


class ExportError(Exception):
    """An export that can't be made; the message is one line for a person."""


@dataclass(frozen=True)
class LoadPart:
    """The measured turns of one level and one model: what other tools call a benchmark."""

    level: Level
    model: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class RunResult:
    """One run. Raises RunError where it can't be read."""

    path: Path

    @cached_property
    def study(self) -> Study:
        return study_run(read_run(self.path))

    @cached_property
    def summary(self) -> Summary:
        return summarise(self.study)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def parts(self) -> list[LoadPart]:
        """Its levels in order, models of a level apart; those without a measured turn are left out."""
        measured = self.study.measured
        found = []
        for level in self.study.levels:
            mine = measured[measured["level"] == level.index]
            found += [LoadPart(level, str(model), rows) for model, rows in mine.groupby("model", sort=True)]
        return found

    def arrivals_us(self, rows: pd.DataFrame) -> Iterator[npt.NDArray[np.int64]]:
        """The arrivals of each of these turns' events, microseconds after it was sent."""
        events = self.study.events
        for row in rows.index:
            yield events.at_us[events.offsets[row] : events.offsets[row + 1]].astype(np.int64)

    def facts(self) -> dict[str, str]:
        """What no copy of the numbers may lose: where they are from, and whether they can be trusted."""
        manifest = self.study.manifest
        return {
            "turnbench_run": self.name,
            "turnbench_version": manifest.versions.get("turnbench", __version__),
            "turnbench_verdict": self.summary.verdict.status,
            "turnbench_emulated": str(self.study.emulated).lower(),
        } | {f"label_{key}": value for key, value in manifest.labels.items()}


def needs(extra: str) -> None:
    """ExportError, with what to install, where the library of an extra is not there."""
    if (why := missing(extra)) is not None:
        raise ExportError(f"--to {extra} {why}")
