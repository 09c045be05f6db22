"""sweep.json: the runs of a sweep and what became of each."""

from __future__ import annotations

from typing import Any

import msgspec

SWEEP_FORMAT = "turnbench-sweep/1"


class SweepEntry(msgspec.Struct, kw_only=True):
    """One run of a sweep."""

    dir: str = ""
    """Its run directory, inside the sweep's."""
    model: str = ""
    """The model that was served for it, as the plan names it."""
    precision: str | None = None
    """Of the weights; null: the catalogue's."""
    scenario: str | None = None
    """Task, mix or file that was played."""
    variant: str | None = None
    """The sweep's word for its options."""
    level: int | None = None
    """Simulated people, where each level is a run of its own."""
    repeat: int | None = None
    """Number of the repeat, from 1, where runs are repeated."""
    status: str = "waiting"
    """waiting, running, finished, interrupted or failed."""
    took_s: float | None = None
    """Seconds from its start to its end, without its server's start."""


class SweepManifest(msgspec.Struct, kw_only=True):
    """sweep.json."""

    format: str = SWEEP_FORMAT
    name: str = ""
    """What the plan calls it."""
    cells: list[SweepEntry] = []
    """Its runs, in the order in which they are played."""
    plan: dict[str, Any] = {}
    """The plan's file, as read."""
