"""Finding: one thing wrong with a run, with its remedy; and how findings add up to a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

RANK = {"valid": 0, "suspect": 1, "invalid": 2}


@dataclass(frozen=True)
class Finding:
    """`level` is invalid, suspect or note (a note changes no status); `at` the load level, None: the run."""

    level: str
    check: str
    what: str
    remedy: str
    at: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As it stands in summary.json."""
        keys = {"level": self.level, "check": self.check, "what": self.what, "remedy": self.remedy}
        return keys if self.at is None else keys | {"at": self.at}


def of_level(index: int, severity: str, check: str, what: str, remedy: str) -> Finding:
    """A finding about one load level, whose text begins with it."""
    return Finding(severity, check, f"level {index}: {what}", remedy, index)


def worst(findings: Iterable[Finding]) -> str:
    """The status that these findings make together: valid, suspect or invalid."""
    return max((f.level for f in findings if f.level in RANK), key=RANK.__getitem__, default="valid")
