"""What becomes of turns: their counts, and when a level measures them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TurnCounts:
    """Cumulative counts of turns: planned = begun + dropped, begun = finished + still open."""

    planned: int = 0
    dropped: int = 0
    begun: int = 0
    finished: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """When a level measures, on this worker's time line; not yet known at first."""

    start_ns: int | None = None
    end_ns: int | None = None

    def holds(self, sent_ns: int | None) -> bool:
        if sent_ns is None or self.start_ns is None or sent_ns < self.start_ns:
            return False
        return self.end_ns is None or sent_ns < self.end_ns
