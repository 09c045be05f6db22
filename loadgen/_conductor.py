"""Directs a run from the master (or the only) Locust process: workers, levels, run directory, end.

Locust's own end loses the last records, so a run ends by our own exchange: every worker is told to finish,
says `done {batches, records}`, and only then may Locust quit.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import gevent
import msgspec
from gevent.event import Event
from locust.env import Environment
from locust.runners import MasterRunner

from loadgen._clock import Timeline
from loadgen._prepare import Prepared, machine, versions
from loadgen._runreader import RUN_FORMAT
from loadgen._runwriter import RunWriter, iso_now, new_run_dir
from loadgen._settings import Job, without_userinfo
from loadgen._worker import TO_CONDUCTOR, TO_WORKER

logger = logging.getLogger(__name__)

_ANSWER_S = 15.0
_ABORT_LEAST_TURNS = 20
_DRAINS = ("closed", "is_quiet")
"""Answers that a second signal does not wait for."""


@dataclass
class WorkerState:
    """What the conductor knows of one worker during a run."""

    index: int
    client_id: str
    offset_ns: int = 0
    error_ns: int | None = None
    batches: int = 0
    records: int = 0
    done: dict[str, int] | None = None
    lost: bool = False
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)


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
        entry = {"level": level, "check": check, "what": what, "remedy": remedy}
        if entry not in self.manifest["findings"]:
            self.manifest["findings"].append(entry)
            logger.log(logging.ERROR if level == "invalid" else logging.WARNING, "%s; %s", what, remedy)

    def end(self, why: str) -> None:
        if self.ending is None:
            self.ending = why
        self.stop.set()

    def alive(self) -> list[WorkerState]:
        return [worker for worker in self.workers.values() if not worker.lost]


class Conductor:
    """Talks with the workers of the run under way; see `_levels` for what a run does in which order."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.runner: Any = environment.runner
        self.run: Run | None = None
        self._news = Event()
        self.runner.register_message(TO_CONDUCTOR, self._on_message)
        if isinstance(self.runner, MasterRunner):
            gevent.spawn(self._beat)

    # --- begin ---

    def open_run(self, prepared: Prepared, again: bool) -> Run:
        """Make the run directory and send every worker its job; raises OSError if it can't be written."""
        settings = prepared.settings
        started = datetime.now(UTC)
        path = new_run_dir(settings.run_dir, prepared.scenario.name, started, again)
        salt = settings.salt or secrets.token_hex(8)
        ids = self.worker_ids()
        manifest = self._manifest(prepared, salt, started)
        run = Run(
            prepared,
            RunWriter(path, manifest, prepared.scenario.text),
            {client_id: WorkerState(index, client_id) for index, client_id in enumerate(ids)},
        )
        self.run = run
        for worker in run.workers.values():
            job = Job(
                run=path.name,
                worker=worker.index,
                workers=len(ids),
                settings=settings,
                scenario=prepared.scenario.text,
                salt=salt,
                model=prepared.model,
                usage_in_events=prepared.endpoint.usage_in_events,
            )
            self.tell(worker, "job", job=msgspec.to_builtins(job))
        logger.info("run directory %s", path)
        return run

    def _manifest(self, prepared: Prepared, salt: str, started: datetime) -> dict[str, Any]:
        settings, endpoint = prepared.settings, prepared.endpoint
        return {
            "format": RUN_FORMAT,
            "status": "running",
            "started_at": started.isoformat(timespec="milliseconds"),
            "ended_at": None,
            "exit_code": None,
            "settings": settings.recorded(),
            "seed": settings.seed,
            "salt": salt,
            "versions": versions(),
            "host": machine(),
            "endpoint": {"url": without_userinfo(endpoint.url), "model": prepared.model},
            "server": endpoint.server | prepared.facts,
            "emulated": endpoint.emulated or bool(prepared.facts.get("emulated")),
            "workers": [],
            "levels": [],
            "labels": settings.labels,
            "slo": prepared.slo,
            "findings": [],
        }

    def worker_ids(self) -> list[str]:
        """Client ids of the workers that are there, in Locust's order."""
        if not isinstance(self.runner, MasterRunner):
            return ["local"]
        nodes = self.runner.clients.ready + self.runner.clients.spawning + self.runner.clients.running
        return sorted((node.id for node in nodes), key=self.runner.get_worker_index)

    # --- talk ---

    def tell(self, worker: WorkerState, op: str, **fields: Any) -> None:
        self.runner.send_message(TO_WORKER, {"op": op, **fields}, worker.client_id)

    def ask(self, run: Run, op: str, answer: str, limit_s: float, **fields: Any) -> list[WorkerState]:
        """Tell all workers and wait for their answers; returns those that did not answer in time."""
        for worker in run.alive():
            worker.answers.pop(answer, None)
            self.tell(worker, op, **fields)
        return self.wait_for(run, answer, limit_s)

    def wait_for(self, run: Run, answer: str, limit_s: float) -> list[WorkerState]:
        """Wait until all have answered; those that had not when time was up, or a person in a hurry."""
        with gevent.Timeout(limit_s, False):
            while self._silent(run, answer) and not (answer in _DRAINS and run.hurry.is_set()):
                self._news.clear()
                self._news.wait(0.2)
        return self._silent(run, answer)

    def wait_for_one(self, run: Run, worker: WorkerState, answer: str, limit_s: float) -> None:
        """Wait for one worker's answer, at most so long."""
        with gevent.Timeout(limit_s, False):
            while answer not in worker.answers and not worker.lost:
                self._news.clear()
                self._news.wait(0.5)

    def _silent(self, run: Run, answer: str) -> list[WorkerState]:
        return [worker for worker in run.alive() if answer not in worker.answers]

    def _on_message(self, environment: Environment, msg: Any, **_: Any) -> None:
        run = self.run
        if run is None or msg.node_id not in run.workers:
            return
        worker, message = run.workers[msg.node_id], msg.data
        if message["run"] != run.writer.path.name or message.get("level", run.level) != run.level:
            return
        match message["op"]:
            case "batch":
                self._on_batch(run, worker, message)
            case "engine_lost":
                worker.lost = True
                run.finding(
                    "invalid", "engine_lost", f"worker {worker.index}: {message['why']}",
                    "its open turns are lost; see the message, mend the cause and run again",
                )  # fmt: skip
                run.end("failed")
            case "refused":
                worker.lost = True
                run.finding("invalid", "worker_refused", f"worker {worker.index}: {message['why']}",
                            "mend this on that machine and run again")  # fmt: skip
                run.end("failed")
            case "exhausted":
                run.exhausted[worker.client_id] = message["users"]
            case op:
                worker.answers[op] = message | {"received_ns": run.timeline.now_ns()}
        self._news.set()

    def _on_batch(self, run: Run, worker: WorkerState, message: dict[str, Any]) -> None:
        worker.batches += 1
        try:
            for kind, line in message["lines"]:
                run.writer.append(kind, worker.index, line)
                if kind == "turns":
                    worker.records += 1
                    run.turns += 1
                    if run.lookout is not None:
                        run.lookout(worker, line)
        except OSError as error:
            self.disk_failed(run, error)
        run.failed += message["failed"]
        share = run.failed / run.turns if run.turns else 0.0
        if run.turns >= _ABORT_LEAST_TURNS and share > run.prepared.settings.abort_errors:
            run.finding("suspect", "abort_errors", f"{share:.0%} of {run.turns} turns failed",
                        "the run was ended as --abort-errors asks; look at the outcomes")  # fmt: skip
            run.end("errors")

    def write_manifest(self, run: Run) -> None:
        """Write run.json; a directory that is gone or full ends the run, it never stops the ending."""
        try:
            run.writer.write_manifest()
        except OSError as error:
            self.disk_failed(run, error)

    def disk_failed(self, run: Run, error: OSError) -> None:
        run.unwritable = True
        run.finding("invalid", "not_writable", f"{run.writer.path}: {error.strerror or error}",
                    "free space or choose another --run-dir; what was written is kept")  # fmt: skip
        run.end("failed")

    # --- what goes on beside a run ---

    def flush_until(self, run: Run, ended: Event) -> None:
        """Once a second: records to the disk, and a look at whether every worker is still there."""
        while not ended.wait(1.0):
            try:
                run.writer.flush()
            except OSError as error:
                self.disk_failed(run, error)
            if not run.locust_stopped:  # after its own stop Locust forgets the workers for a moment
                self.look_for_lost(run)

    def look_for_lost(self, run: Run) -> None:
        """End the run if Locust no longer knows one of its workers."""
        for worker in run.alive() if isinstance(self.runner, MasterRunner) else []:
            node = self.runner.clients.get(worker.client_id)
            if node is None or node.state == "missing":
                self.lose(run, worker)

    def lose(self, run: Run, worker: WorkerState) -> None:
        worker.lost = True
        share = f"{1 / len(run.workers):.0%} of the load"
        run.finding(
            "invalid", "worker_lost", f"worker {worker.index} ({worker.client_id}) was lost: {share}",
            "its last records are missing; look at that machine and run again",
        )  # fmt: skip
        run.end("failed")

    def late_worker(self, client_id: str) -> None:
        """A worker that joins during a run gets no job: who plays what was fixed at the start."""
        if self.run is not None and client_id not in self.run.workers:
            # Locust moves some of the people to it all the same, so fewer make load than the level says.
            what = f"worker {client_id} joined during the run and stayed idle, with the people Locust gave it"
            self.run.finding("invalid", "late_worker", what,
                             "start all workers first (--expect-workers N)")  # fmt: skip

    def close_run(self, run: Run) -> None:
        """Finish on every worker, wait for their last records, and write down how it ended."""
        self.ask(run, "finish", "done", _ANSWER_S)
        for worker in run.alive():
            done = worker.answers.get("done")
            if done is None:
                self.lose(run, worker)
            elif not run.unwritable and (worker.batches, worker.records) != (
                done["batches"],
                done["records"],
            ):
                missing = f"{done['records'] - worker.records} of {done['records']}"
                what = f"{missing} records of worker {worker.index} never came"
                run.finding("invalid", "records_missing", what,
                            "the network to the master lost them; run again")  # fmt: skip
        status = {None: "finished", "stopped": "finished", "interrupted": "interrupted"}
        try:
            run.writer.close()
        except OSError as error:
            self.disk_failed(run, error)
        run.manifest["status"] = status.get(run.ending, "failed")
        run.manifest["ended_at"] = iso_now()
        self.write_manifest(run)
        self.run = None

    def _beat(self) -> None:
        """Let every worker hear from us each second: one that hears nothing for 5 s stops its load."""
        while True:
            self.runner.send_message(TO_WORKER, {"op": "beat"})
            gevent.sleep(1.0)
