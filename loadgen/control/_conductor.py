"""Talks with the workers of the run under way, from the master (or the only) Locust process.

Locust's own end loses the last records, so a run ends by our own exchange: every worker is told to finish,
says `done {batches, records}`, and only then may Locust quit.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import gevent
import msgspec
from gevent.event import Event
from gevent.queue import Queue
from locust.env import Environment
from locust.runners import MasterRunner

from loadgen._settings import Job
from loadgen.control._files import close_files, new_manifest, take_batch
from loadgen.control._guard import spawn_guarded
from loadgen.control._roll_call import count_records
from loadgen.control._state import Run, WorkerState
from loadgen.control._worker import TO_CONDUCTOR, TO_WORKER
from loadgen.control._writer import RunWriter, new_run_dir
from loadgen.options._prepare import Prepared

logger = logging.getLogger(__name__)

_ANSWER_S = 15.0
_BEAT_S = 1.0
_DRAINS = ("closed", "is_quiet")
"""Answers that a second signal does not wait for."""


class Conductor:
    """One per Locust master or lone process; see `_levels` for what a run does in which order."""

    def __init__(self, environment: Environment) -> None:
        self.runner: Any = environment.runner
        self.run: Run | None = None
        self._news = Event()
        self._inbox: Queue[tuple[Run, WorkerState, dict[str, Any]]] = Queue()
        self.runner.register_message(TO_CONDUCTOR, self._on_message)
        self._start(self._listen)
        if isinstance(self.runner, MasterRunner):
            self._start(self._beat)

    # --- begin and end ---

    def open_run(self, prepared: Prepared, again: bool) -> Run:
        """Make the run directory and send every worker its job; raises OSError if it can't be written."""
        settings = prepared.settings
        started = datetime.now(UTC)
        path = new_run_dir(settings.run_dir, prepared.scenario.name, started, again)
        salt = settings.salt or secrets.token_hex(8)
        workers = {name: WorkerState(index, name) for index, name in enumerate(self.worker_ids())}
        writer = RunWriter(path, new_manifest(prepared, salt, started), prepared.scenario.text)
        run = self.run = Run(prepared, writer, workers)
        for worker in workers.values():
            self.give_job(run, worker)
        logger.info("run directory %s", path)
        for finding in prepared.findings:
            run.finding(*finding)
        return run

    def give_job(self, run: Run, worker: WorkerState) -> None:
        """Tell a worker what the run is; it takes the same job only once."""
        prepared = run.prepared
        job = Job(
            run=run.writer.path.name,
            worker=worker.index,
            workers=len(run.workers),
            settings=prepared.settings,
            scenario=prepared.scenario.text,
            salt=run.manifest["salt"],
            model=prepared.model,
            usage_in_events=prepared.endpoint.usage_in_events,
            context=prepared.endpoint.max_model_len,
        )
        self.tell(worker, "job", job=msgspec.to_builtins(job))

    def close_run(self, run: Run) -> None:
        """Finish on every worker, wait for their last records, and write down how it ended."""
        self.ask(run, "finish", "done", _ANSWER_S)
        count_records(run)
        close_files(run)
        self.run = None

    def worker_ids(self) -> list[str]:
        """Client ids of the workers that are there, in Locust's order."""
        if not isinstance(self.runner, MasterRunner):
            return ["local"]
        nodes = self.runner.clients.ready + self.runner.clients.spawning + self.runner.clients.running
        return sorted((node.id for node in nodes), key=self.runner.get_worker_index)

    # --- talk ---

    def tell(self, worker: WorkerState, op: str, **fields: Any) -> None:
        self.runner.send_message(TO_WORKER, {"op": op, **fields}, worker.client_id)

    def tell_all(self, run: Run, op: str, **fields: Any) -> None:
        for worker in run.alive():
            self.tell(worker, op, **fields)

    def ask(self, run: Run, op: str, answer: str, limit_s: float, **fields: Any) -> list[WorkerState]:
        """Tell all workers and wait for their answers; returns those that did not answer in time."""
        for worker in run.alive():
            worker.answers.pop(answer, None)
        self.tell_all(run, op, **fields)
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
        if run is None or msg.node_id not in run.workers or msg.data["run"] != run.writer.path.name:
            return
        # Not dealt with here: Locust would swallow what goes wrong, and its listener must not wait.
        message = msg.data | {"received_ns": run.timeline.now_ns()}
        self._inbox.put((run, run.workers[msg.node_id], message))

    def _listen(self) -> None:
        for run, worker, message in self._inbox:
            if message.get("level", run.level) == run.level:
                self._hear(run, worker, message)
            self._news.set()

    def _hear(self, run: Run, worker: WorkerState, message: dict[str, Any]) -> None:
        match message["op"]:
            case "batch":
                take_batch(run, worker, message)
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
            case "compressed":
                how = message["encoding"]
                run.finding(
                    "note", "compressed", f"the server compresses its streams ({how}), though asked not to",
                    "switch that off for event streams: a token waits until its block is full",
                )  # fmt: skip
            case "exhausted":
                run.exhausted[worker.client_id] = message["users"]
            case op:
                worker.answers[op] = message

    def _beat(self) -> None:
        """Let every worker hear from us each second: one that hears nothing for 5 s stops its load."""
        while True:
            self.runner.send_message(TO_WORKER, {"op": "beat"})
            gevent.sleep(_BEAT_S)

    # --- what must not fail in silence ---

    def _start(self, work: Callable[[], None]) -> None:
        spawn_guarded(lambda why: self._failed(work, why), work)

    def _failed(self, work: Callable[[], None], why: str) -> None:
        """A fault of our own ends the run; the work goes on, so that the run can end in good order."""
        logger.error("%s failed: %s", work.__name__.strip("_"), why)
        if self.run is not None:
            self.run.fault(why)
        gevent.sleep(_BEAT_S)
        self._start(work)
