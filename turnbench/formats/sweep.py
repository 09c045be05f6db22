"""sweep.json: the runs of a sweep and what became of each."""

from __future__ import annotations

from typing import Any

import msgspec

SWEEP_FORMAT = "turnbench-sweep/1"


class SweepEntry(msgspec.Struct, kw_only=True):
    """One run of a sweep."""

    dir: str
    """Its run directory, inside the sweep's."""
    model: str = ""
    precision: str | None = None
    scenario: str | None = None
    variant: str | None = None
    """The sweep's word for its options."""
    level: int | None = None
    repeat: int | None = None
    status: str = "waiting"
    """waiting, running, finished, interrupted or failed."""
    took_s: float | None = None
    """Seconds from its start to its end, without its server's start."""


class SweepManifest(msgspec.Struct, kw_only=True):
    """sweep.json."""

    format: str = SWEEP_FORMAT
    name: str = ""
    cells: list[SweepEntry] = []
    plan: dict[str, Any] = {}
