"""The run under way: its workers, its records on disk, its findings, and why it has to end.

Everything here runs in greenlets of the one process that directs the run. A disk that fails never raises: it
becomes a finding and ends the run, which must still be able to close in good order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.event import Event
from msgspec.structs import replace

from loadgen.control import _findings
from loadgen.control._live import LiveNumbers, LiveSnapshot
from loadgen.control._run_files import RunWriter, iso_now
from loadgen.options._prepare import Prepared
from turnbench.cleaning import printable
from turnbench.clock import Timeline
from turnbench.credentials import Secrets
from turnbench.formats import Finding, HealthLine, LevelEntry, RunManifest, RunStatus

logger = logging.getLogger(__name__)

_ABORT_LEAST_TURNS = 20
_STATUS: dict[str | None, RunStatus] = {
    None: "finished",
    "stopped": "finished",
    "level": "finished",
    "errors": "finished",
    "interrupted": "interrupted",
}
"""What `status` says of each way to end; one that was asked for beforehand counts as finished."""


@dataclass
class WorkerState:
    """What the controller knows of one worker during a run."""

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
class RunState:
    """One run under way."""

    prepared: Prepared
    writer: RunWriter
    workers: dict[str, WorkerState]
    timeline: Timeline = field(default_factory=Timeline)
    stop: Event = field(default_factory=Event)
    """Set when the run has to end before its plan does."""
    end_at_once: Event = field(default_factory=Event)
    """Set by a second signal: wait for nothing any more."""
    last_level: bool = False
    """Somebody wants it to end after the level under way."""
    ending: str | None = None
    """Why it ends early: interrupted | stopped | level | failed | errors."""
    unwritable: bool = False
    locust_stopped: bool = False
    """Locust stopped its users by itself: the stop button, or its last worker is gone."""
    level: int = -1
    """Index of the level being played; answers about another one come too late to count."""
    exhausted: dict[str, int] = field(default_factory=dict)
    """Users for whom no conversation was left, by worker."""
    turns: int = 0
    failed: int = 0
    answered: int = 0
    unanswered: int = 0
    """Those that failed, and those that were given up before their answer was whole."""
    secrets: Secrets = field(default_factory=Secrets)
    """Taken out of every finding: one may repeat what a server said."""
    on_record: Callable[[WorkerState, bytes], None] | None = None
    """Gets every turn's record as it comes in."""
    live: LiveNumbers = field(default_factory=LiveNumbers)

    @property
    def manifest(self) -> RunManifest:
        """run.json as it will be written next."""
        return self.writer.manifest

    def alive(self) -> list[WorkerState]:
        """The workers that were not lost."""
        return [worker for worker in self.workers.values() if not worker.lost]

    # --- what goes wrong, and the end ---

    def report(self, finding: Finding) -> None:
        """Write a finding down, and log it; the same one only once."""
        finding = replace(finding, what=printable(self.secrets.scrubbed(finding.what)))
        if finding not in self.manifest.findings:
            self.manifest.findings.append(finding)
            severity = logging.ERROR if finding.level == "invalid" else logging.WARNING
            logger.log(severity, "%s; %s", finding.what, finding.remedy)

    def fault(self, why: str) -> None:
        """Something of ours broke: what was recorded can't be trusted, and why is written down."""
        self.report(_findings.TURNBENCH_FAILED.finding(why))
        self.end("failed")

    def end(self, why: str) -> None:
        """Have the run end now; the first reason stays."""
        if self.ending is None:
            self.ending = why
        self.stop.set()

    def lose(self, worker: WorkerState) -> None:
        """A worker is gone, and with it its share of the load and its last records."""
        worker.lost = True
        self.report(_findings.WORKER_LOST.finding(worker.index, worker.client_id, 1 / len(self.workers)))
        self.end("failed")

    # --- what is seen of it ---

    @property
    def level_entry(self) -> LevelEntry | None:
        """The level under way, as run.json has it."""
        view, levels = self.live.level, self.manifest.levels
        return levels[-1] if view is not None and levels and levels[-1].index == view.number - 1 else None

    def snapshot(self, people: int) -> LiveSnapshot:
        """Its numbers now; `people`: how many Locust users there are."""
        live, now_ns, view, entry = self.live, self.timeline.now_ns(), self.live.level, self.level_entry
        live.digest(entry)
        seen = LiveSnapshot(
            run=self.writer.path.name,
            scenario=self.prepared.scenario.name,
            model=self.manifest.endpoint.model,
            emulated=self.manifest.emulated,
            people=people,
            in_flight=live.in_flight(now_ns),
            client=live.client(now_ns),
            findings=[finding.what for finding in self.manifest.findings if finding.level != "note"],
            ends_after_level=self.last_level,
        )
        if view is None or entry is None:
            return seen
        seen.level, seen.phase = view.title, view.phase
        seen.more_levels = view.later > 0 or self.prepared.shape.ends == "decided"
        seen.phase_s = max(now_ns - view.from_ns, 0) / 1e9 if view.from_ns else 0.0
        if view.until_ns is not None:
            seen.phase_of_s = (view.until_ns - view.from_ns) / 1e9
        if (left_s := live.left_s(now_ns)) is not None:
            seen.least_left_s, seen.likely_left_s = left_s
        seen.measured = entry.window_start_ns is not None
        seen.tasks = live.tasks(now_ns, entry.start_ns or 0)
        seen.outcomes, seen.last_error = live.outcomes(), live.last_error()
        return seen

    # --- records and run.json ---

    def take_batch(self, worker: WorkerState, message: dict[str, Any]) -> None:
        """Write a worker's records down and count them; ends the run as --abort-errors asks."""
        worker.batches += 1
        try:
            for kind, line in message["lines"]:
                self.writer.append(kind, worker.index, line)
                if kind == "health":
                    self.live.take_health(line, self.timeline.now_ns())
                if kind == "turns":
                    worker.records += 1
                    self.live.take_turn(line, worker.offset_ns)
                    if self.on_record is not None:
                        self.on_record(worker, line)
        except OSError as error:
            self._disk_failed(error)
        if self.live.waiting:
            self.live.digest(self.level_entry)
        self.turns += message["turns"]
        self.answered += message["answered"]
        self.failed += message["failed"]
        self.unanswered += message["unanswered"]
        share = self.unanswered / self.turns if self.turns else 0.0
        too_many = self.turns >= _ABORT_LEAST_TURNS and share > self.prepared.settings.abort_errors
        if too_many and self.ending is None:
            self.report(_findings.ABORT_ERRORS.finding(share, self.turns))
            self.end("errors")

    def take_counts(self, worker: WorkerState, message: dict[str, Any]) -> None:
        """Keep on disk how many turns this worker has begun: after a kill those without a record are lost."""
        counts = {name: message[name] for name in ("planned", "dropped", "begun", "finished")}
        try:
            self.writer.count(HealthLine(t_ns=self.timeline.now_ns(), worker=worker.index, **counts))
        except OSError as error:
            self._disk_failed(error)

    def check_records(self) -> None:
        """Compare what each worker says it sent with what came, after all were asked to finish."""
        for worker in self.alive():
            done = worker.answers.get("done")
            if done is None:
                self.lose(worker)
            elif not self.unwritable and (worker.batches, worker.records) != (
                done["batches"],
                done["records"],
            ):
                missing = done["records"] - worker.records
                self.report(_findings.RECORDS_MISSING.finding(missing, done["records"], worker.index))

    def save(self) -> None:
        """Write run.json."""
        try:
            self.writer.write_manifest()
        except OSError as error:
            self._disk_failed(error)

    def flush(self) -> None:
        """Write the records so far to the disk."""
        try:
            self.writer.flush()
        except OSError as error:
            self._disk_failed(error)

    def close(self) -> None:
        """Close the records, and write down how the run ended."""
        try:
            self.writer.close([worker.index for worker in self.workers.values() if worker.lost])
        except OSError as error:
            self._disk_failed(error)
        self.manifest.status = _STATUS.get(self.ending, "failed")
        self.manifest.ended_at = iso_now()
        self.save()

    def save_exit_code(self, code: int) -> None:
        """Write the exit code into run.json; that a directory can't be written was reported before."""
        self.manifest.exit_code = code
        try:
            self.writer.write_manifest()
        except OSError as error:
            logger.error("%s: %s", self.writer.path, error)

    def _disk_failed(self, error: OSError) -> None:
        self.unwritable = True
        self.report(_findings.NOT_WRITABLE.finding(self.writer.path, error.strerror or error))
        self.end("failed")


def spawn_guarded(failed: Callable[[str], None], work: Callable[..., None], *arguments: Any) -> Any:
    """Start a greenlet that can't fail in silence: `failed` gets the reason, in a greenlet of its own.

    gevent itself would print a traceback and let everybody else wait for ever.
    """
    greenlet = gevent.spawn(work, *arguments)
    greenlet.link_exception(lambda dead: gevent.spawn(failed, reason(dead.exception)))
    return greenlet


def reason(error: BaseException) -> str:
    """An exception as one line for a person."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
