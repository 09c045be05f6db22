"""Open loop: what became of the arrivals of a level, and how late they began."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from turnbench.formats import TurnRecord


class Arrivals:
    """First turns of a level's window, as their records come in."""

    def __init__(self) -> None:
        self._due: dict[int, tuple[int, float | None, bool]] = {}

    def add(self, record: TurnRecord, offset_ns: int) -> None:
        """`offset_ns`: how far the clock of the record's worker is ahead of ours."""
        if record.turn == 1 and record.attempt == 1:
            late_ms = None if record.sent_ns is None else (record.sent_ns - record.due_ns) / 1e6
            self._due[record.conversation] = (
                record.due_ns - offset_ns,
                late_ms,
                record.outcome == "dropped",
            )

    def summary(self, start_ns: int, end_ns: int) -> dict[str, Any]:
        """Counts, rate and start lateness (sent - due) of those due in the window."""
        inside = [entry for entry in self._due.values() if start_ns <= entry[0] < end_ns]
        dropped = sum(entry[2] for entry in inside)
        late_ms = sorted(entry[1] for entry in inside if entry[1] is not None)
        window_s = (end_ns - start_ns) / 1e9
        return {
            "due": len(inside),
            "dropped": dropped,
            "begun_per_s": round((len(inside) - dropped) / window_s, 4) if window_s > 0 else None,
            "late_p50_ms": _quantile(late_ms, 0.5),
            "late_p99_ms": _quantile(late_ms, 0.99),
            "late_max_ms": _quantile(late_ms, 1.0),
        }


def sentence(asked_per_s: float, told: dict[str, Any]) -> str:
    """One line for a person."""
    reached = "nothing" if told["begun_per_s"] is None else f"{told['begun_per_s']:.2f}/s"
    late = "none was sent"
    if told["late_p99_ms"] is not None:
        late = f"start lateness p50 {told['late_p50_ms']:.2f} ms, p99 {told['late_p99_ms']:.2f} ms"
    return (
        f"arrivals: {told['due']} due in the window, {reached} begun of {asked_per_s:g}/s asked for, "
        f"{told['dropped']} dropped; {late}, max {told['late_max_ms'] or 0:.2f} ms"
    )


def _quantile(ordered: Iterable[float], share: float) -> float | None:
    """Nearest rank from above: never below the true one."""
    values = list(ordered)
    return round(values[min(int(share * len(values)), len(values) - 1)], 3) if values else None
