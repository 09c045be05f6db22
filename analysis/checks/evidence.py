"""What checks look at, and how their findings add up to a status."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from msgspec.structs import replace

from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.findings import FindingKind
from turnbench.formats import Finding, Status, TurnLedger

RANK: dict[str, int] = {"valid": 0, "suspect": 1, "invalid": 2}
"""Statuses from the best to the worst."""


@dataclass(frozen=True)
class RunEvidence:
    """A whole run."""

    study: Study
    ledger: TurnLedger

    @cached_property
    def levels(self) -> list[LevelEvidence]:
        return [LevelEvidence(self.study, level) for level in self.study.levels]


@dataclass(frozen=True)
class LevelEvidence:
    """One level of a run."""

    study: Study
    level: Level

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Its measured turns."""
        return self.study.measured[self.study.measured["level"] == self.level.index]

    def second(self, moment_ns: int) -> float:
        """Seconds from the start of its window to a moment."""
        return (moment_ns - self.level.window_start_ns) / 1e9

    def finding(self, kind: FindingKind, *values: object, **words: Any) -> Finding:
        """A finding about this level, whose text begins with it; see `FindingKind.finding`."""
        found = kind.finding(*values, at=self.level.index, **words)
        return replace(found, what=f"level {self.level.index}: {found.what}")


RunCheck = Callable[[RunEvidence], Iterable[Finding]]
LevelCheck = Callable[[LevelEvidence], Iterable[Finding]]


def worst(findings: Iterable[Finding]) -> Status:
    """The status that these findings make together: valid, suspect or invalid."""
    levels = {finding.level for finding in findings}
    return "invalid" if "invalid" in levels else "suspect" if "suspect" in levels else "valid"
