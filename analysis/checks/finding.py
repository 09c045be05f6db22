"""Findings about one load level, and how findings add up to a status."""

from __future__ import annotations

from collections.abc import Iterable

from turnbench.formats import Finding, Severity

RANK = {"valid": 0, "suspect": 1, "invalid": 2}


def of_level(index: int, severity: Severity, check: str, what: str, remedy: str) -> Finding:
    """A finding about one load level, whose text begins with it."""
    return Finding(severity, check, f"level {index}: {what}", remedy, index)


def worst(findings: Iterable[Finding]) -> str:
    """The status that these findings make together: valid, suspect or invalid."""
    return max((f.level for f in findings if f.level in RANK), key=RANK.__getitem__, default="valid")
