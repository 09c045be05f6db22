"""One simulated person: waits, and may be asked to leave."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from turnbench.clock import Timeline


@dataclass(slots=True)
class SimulatedPerson:
    """One simulated person in one conversation."""

    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: this person begins no further turn; the one under way goes on to its end."""


async def pause_until(person: SimulatedPerson, timeline: Timeline, due_ns: int) -> None:
    """Sleep until then, or until this person leaves."""
    wait_s = (due_ns - timeline.now_ns()) / 1e9
    if wait_s > 0:
        await first(asyncio.sleep(wait_s), person.leaving.wait())


async def first(*waits: Any) -> None:
    """Wait for the first of these and drop the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
