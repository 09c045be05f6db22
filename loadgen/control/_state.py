"""What is known of the run under way: its workers, its level, and why it has to end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gevent.event import Event

from loadgen.control._writer import RunWriter
from loadgen.options._prepare import Prepared
from turnbench.clock import Timeline

logger = logging.getLogger(__name__)


@dataclass
class WorkerState:
    """What the conductor knows of one worker during a run."""

    index: int
    client_id: str
    offset_ns: int = 0
    """How far the worker's time line is ahead of ours."""
    error_ns: int | None = None
    batches: int = 0
    records: int = 0
    lost: bool = False
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last message of each kind."""


@dataclass
class Run:
    """One run under way."""

    prepared: Prepared
    writer: RunWriter
    workers: dict[str, WorkerState]
    timeline: Timeline = field(default_factory=Timeline)
    stop: Event = field(default_factory=Event)
    """Set when the run has to end before its plan does."""
    hurry: Event = field(default_factory=Event)
    """Set by a second signal: don't wait for anything."""
    ending: str | None = None
    """Why it ends early: interrupted | stopped | failed | errors."""
    unwritable: bool = False
    locust_stopped: bool = False
    """Locust stopped its users by itself: the stop button, or its last worker is gone."""
    level: int = -1
    """Index of the level being played; answers about another one come too late to count."""
    exhausted: dict[str, int] = field(default_factory=dict)
    turns: int = 0
    failed: int = 0
    lookout: Callable[[WorkerState, bytes], None] | None = None
    """Is shown every record as it comes in."""

    @property
    def manifest(self) -> dict[str, Any]:
        return self.writer.manifest

    def finding(self, level: str, check: str, what: str, remedy: str) -> None:
        """Write down, once, what is wrong and what to do about it; `level` is invalid, suspect or note."""
        entry = {"level": level, "check": check, "what": what, "remedy": remedy}
        if entry not in self.manifest["findings"]:
            self.manifest["findings"].append(entry)
            logger.log(logging.ERROR if level == "invalid" else logging.WARNING, "%s; %s", what, remedy)

    def fault(self, why: str) -> None:
        """Something of ours broke: what was recorded can't be trusted, and why is written down."""
        remedy = "a fault of turnbench itself: report it with what was printed, and run again"
        self.finding("invalid", "turnbench_failed", why, remedy)
        self.end("failed")

    def end(self, why: str) -> None:
        """Have the run end now; the first reason stays."""
        if self.ending is None:
            self.ending = why
        self.stop.set()

    def alive(self) -> list[WorkerState]:
        return [worker for worker in self.workers.values() if not worker.lost]
