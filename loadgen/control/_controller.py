"""Directs the workers of a run from the master (or the only) Locust process.

Locust's own end loses the last records, so a run ends by an exchange of our own: every worker is asked to
finish, answers `done {batches, records}`, and only then may Locust quit. Locust's listeners must never wait,
so messages are taken in there and dealt with in a greenlet.
"""

from __future__ import annotations

import logging
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import gevent
import msgspec
import psutil
from gevent.event import Event
from gevent.queue import Queue
from locust.env import Environment
from locust.runners import MasterRunner
from locust.stats import RequestStats

from loadgen._messages import EngineMessage, FinishRun, Job, Ping, ShowAnswer, StartRun
from loadgen.control import _findings
from loadgen.control._live import LiveAnswer, LiveNumbers, LiveSnapshot
from loadgen.control._run_files import RunWriter, new_manifest, new_run_dir
from loadgen.control._state import RunState, WorkerState, spawn_guarded
from loadgen.control._worker import TO_CONTROLLER, TO_WORKER
from loadgen.options._headers import dialect_of, secrets_here
from loadgen.options._prepare import Prepared
from scenarios import NO_TAGS
from turnbench import exits
from turnbench.formats import WorkerEntry

logger = logging.getLogger(__name__)

_FINISH_S = 15.0
_HEARTBEAT_S = 1.0
_SECONDS_KEPT = 60
"""Of each second's requests in Locust's statistics."""
_READY_S = 60.0
_ASK_AGAIN_S = 3.0
_FORKED_END_S = 5.0
_ROUND_TRIPS = 20
_ROUND_TRIP_S = 1.0
_DRAINS = ("closed", "is_quiet")
"""Answers that a second signal does not wait for."""


class RunController:
    """One per Locust master or lone process; see `_levels` for what a run does in which order."""

    def __init__(self, environment: Environment) -> None:
        self.runner: Any = environment.runner
        self.run: RunState | None = None
        self._news = Event()
        self._inbox: Queue[tuple[RunState, WorkerState, dict[str, Any]]] = Queue()
        self.runner.register_message(TO_CONTROLLER, self._on_message)
        self._start(self._take_messages)
        self._start(self._forget_seconds)
        if isinstance(self.runner, MasterRunner):
            self._start(self._send_heartbeats)

    # --- begin and end ---

    def open_run(self, prepared: Prepared, again: bool) -> RunState:
        """Make the run directory and send every worker its job; raises OSError if it can't be written."""
        settings = prepared.settings
        started = datetime.now(UTC)
        path = new_run_dir(settings.run_dir, prepared.scenario.name, started, again)
        salt = settings.salt or (NO_TAGS if settings.cache == "warm" else secrets.token_hex(8))
        workers = {name: WorkerState(index, name) for index, name in enumerate(self.worker_ids())}
        writer = RunWriter(path, new_manifest(prepared, salt, started), prepared.scenario.text)
        live = LiveNumbers(writer.manifest.server)
        run = self.run = RunState(prepared, writer, workers, secrets=secrets_here(settings), live=live)
        for worker in workers.values():
            self._send_job(run, worker)
        logger.info("run directory %s", path)
        for finding in prepared.findings:
            run.report(finding)
        return run

    def await_ready(self, run: RunState) -> None:
        """Until every worker is ready; one that connected in this very moment may have missed its job."""
        for _ in range(int(_READY_S / _ASK_AGAIN_S)):
            silent = self.wait_for(run, "ready", _ASK_AGAIN_S)
            if run.stop.is_set() or not silent:
                return
            for worker in silent:
                self._send_job(run, worker)
        for worker in silent:
            run.lose(worker)

    def close_run(self, run: RunState) -> None:
        """Finish on every worker, wait for their last records, and write down how it ended."""
        self.ask(run, FinishRun(), "done", _FINISH_S)
        run.check_records()
        run.close()
        self.run = None

    def worker_ids(self) -> list[str]:
        """Client ids of the workers that are there, in Locust's order."""
        if not isinstance(self.runner, MasterRunner):
            return ["local"]
        nodes = self.runner.clients.ready + self.runner.clients.spawning + self.runner.clients.running
        return sorted((node.id for node in nodes), key=self.runner.get_worker_index)

    # --- workers that are lost or late ---

    def watch_workers(self, run: RunState, ended: Event) -> None:
        """Once a second until the end: records to the disk, and a look at whether every worker is there."""
        while not ended.wait(1.0):
            run.flush()
            if not run.locust_stopped:  # after its own stop Locust forgets the workers for a moment
                self.look_for_lost(run)

    def look_for_lost(self, run: RunState) -> None:
        """End the run if Locust no longer knows one of its workers."""
        for worker in run.alive() if isinstance(self.runner, MasterRunner) else []:
            node = self.runner.clients.get(worker.client_id)
            if node is None or node.state == "missing":
                run.lose(worker)

    def refuse_late_worker(self, client_id: str) -> None:
        """A worker that joins during a run gets no job: who plays what was fixed at the start."""
        if self.run is not None and client_id not in self.run.workers:
            # Locust moves some of the people to it all the same, so fewer make load than the level says.
            self.run.report(_findings.LATE_WORKER.finding(client_id))

    # --- clocks ---

    def measure_offsets(self, run: RunState) -> None:
        """How far each engine's time line is from ours, by the best of twenty round trips, as NTP does it.

        Time lines and not wall clocks are compared, since records and windows are on time lines: a wall
        clock that is stepped before or during a run moves neither. Offset = worker's time - the middle of the
        round trip; error = half the round trip (Mills, RFC 5905). The best pair so far is kept.
        """
        for worker in run.alive():
            for trip in range(_ROUND_TRIPS):
                if not self._round_trip(run, worker, trip):
                    break
        run.manifest.workers = [
            WorkerEntry(
                index=worker.index,
                host=worker.client_id.rpartition("_")[0] or "local",
                clock_offset_ns=worker.offset_ns,
                clock_error_ns=worker.error_ns,
            )
            for worker in run.workers.values()
        ]

    def _round_trip(self, run: RunState, worker: WorkerState, trip: int) -> bool:
        worker.answers.pop("pong", None)
        sent_ns = run.timeline.now_ns()
        self.send(worker, Ping(trip))
        with gevent.Timeout(_ROUND_TRIP_S, False):
            while "pong" not in worker.answers and not worker.lost:
                self._news.clear()
                self._news.wait(0.5)
        pong = worker.answers.get("pong")
        if pong is None:
            return False
        error_ns = (pong["received_ns"] - sent_ns) // 2
        offset_ns = pong["here_ns"] - (sent_ns + error_ns)
        if worker.error_ns is None or error_ns < worker.error_ns:
            # An offset within its own error can't be told from none, and on one machine it is none.
            worker.error_ns = error_ns
            worker.offset_ns = offset_ns if abs(offset_ns) > error_ns else 0
        return True

    # --- who looks on ---

    def look(self, run: RunState) -> LiveSnapshot:
        """The run's numbers, with the answer of one conversation; asks the first worker for the next look."""
        seen = run.snapshot(self.runner.user_count)
        for worker in run.alive()[:1]:
            if (shown := worker.answers.get("answer_shown")) is not None:
                seen.answer = msgspec.convert(shown, LiveAnswer)
            self.send(worker, ShowAnswer())
        return seen

    # --- messages ---

    def send(self, worker: WorkerState, message: EngineMessage) -> None:
        """Send a message to one worker's engine."""
        self.runner.send_message(TO_WORKER, msgspec.to_builtins(message), worker.client_id)

    def ask(self, run: RunState, message: EngineMessage, answer: str, limit_s: float) -> list[WorkerState]:
        """Send every worker that is left a message, and wait for the answers to it.

        `answer` is the `op` of the answer. Returns the workers that gave none in time.
        """
        for worker in run.alive():
            worker.answers.pop(answer, None)
            self.send(worker, message)
        return self.wait_for(run, answer, limit_s)

    def wait_for(self, run: RunState, answer: str, limit_s: float) -> list[WorkerState]:
        """Wait until all workers have answered; returns those that have not within the limit.

        A second signal ends the wait for a drain.
        """

        def silent() -> list[WorkerState]:
            return [worker for worker in run.alive() if answer not in worker.answers]

        with gevent.Timeout(limit_s, False):
            while silent() and not (answer in _DRAINS and run.end_at_once.is_set()):
                self._news.clear()
                self._news.wait(0.2)
        return silent()

    def _send_job(self, run: RunState, worker: WorkerState) -> None:
        """Send a worker what it has to know of the run; it takes the same job only once."""
        prepared = run.prepared
        job = Job(
            run=run.writer.path.name,
            worker=worker.index,
            workers=len(run.workers),
            settings=prepared.settings,
            load=prepared.shape.engine_load(),
            scenario=prepared.scenario.text,
            salt=run.manifest.salt,
            model=prepared.model,
            models=prepared.models,
            usage_in_events=prepared.endpoint.usage_in_events,
            context=prepared.endpoint.max_model_len,
            measured=prepared.endpoint.measured,
            dialect=dialect_of(prepared.settings),
            counts_path=self._counts_path(run, worker),
        )
        self.send(worker, StartRun(job))

    def _counts_path(self, run: RunState, worker: WorkerState) -> str:
        """The file in which this worker's engine counts its turns; empty where it is on another machine."""
        if isinstance(self.runner, MasterRunner) and not self.runner.environment.parsed_options.processes:
            return ""
        path = run.writer.counts_path(worker.index).resolve()
        path.touch()
        return str(path)

    def _on_message(self, environment: Environment, msg: Any, **_: Any) -> None:
        run = self.run
        if run is None or msg.node_id not in run.workers or msg.data["run"] != run.writer.path.name:
            return
        # Not dealt with here: Locust would swallow what goes wrong, and its listener must not wait.
        message = msg.data | {"received_ns": run.timeline.now_ns()}
        self._inbox.put((run, run.workers[msg.node_id], message))

    def _take_messages(self) -> None:
        for run, worker, message in self._inbox:
            if message.get("level", run.level) == run.level:
                self._take(run, worker, message)
            self._news.set()

    def _take(self, run: RunState, worker: WorkerState, message: dict[str, Any]) -> None:
        match message["op"]:
            case "batch":
                run.take_batch(worker, message)
            case "counts":
                run.take_counts(worker, message)
            case "engine_lost":
                worker.lost = True
                run.report(_findings.ENGINE_LOST.finding(worker.index, message["why"]))
                run.end("failed")
            case "refused":
                worker.lost = True
                run.report(_findings.WORKER_REFUSED.finding(worker.index, message["why"]))
                run.end("failed")
            case "compressed":
                run.report(_findings.COMPRESSED.finding(message["encoding"]))
            case "request_changed":
                run.report(_findings.REQUEST_CHANGED.finding(message["what"]))
            case "odd":
                run.report(_findings.ODD_ANSWERS.finding(message["what"]))
            case "not_on_the_wire":
                run.report(_findings.CLOCK.finding(message["why"]))
            case "exhausted":
                run.exhausted[worker.client_id] = message["users"]
            case op:
                worker.answers[op] = message

    def _send_heartbeats(self) -> None:
        """Send every worker a sign of life each second: one that gets none for 5 s stops its load."""
        while True:
            self.runner.send_message(TO_WORKER, {"op": "heartbeat"})
            gevent.sleep(_HEARTBEAT_S)

    def _forget_seconds(self) -> None:
        """Have Locust's statistics forget how many requests each second had: they keep all seconds of a run
        and read the last ten."""
        while True:
            gevent.sleep(_SECONDS_KEPT)
            forget_seconds_before(self.runner.stats, int(time.time()) - _SECONDS_KEPT)

    def _start(self, work: Callable[[], None]) -> None:
        """Start a greenlet for the life of the process: a fault in it ends the run, and it starts again."""

        def failed(why: str) -> None:
            logger.error("%s failed: %s", work.__name__.strip("_"), why)
            if self.run is not None:
                self.run.fault(why)
            gevent.sleep(_HEARTBEAT_S)
            self._start(work)

        spawn_guarded(failed, work)


def forget_seconds_before(stats: RequestStats, second: int) -> None:
    """Take the counts of all seconds before this one (Unix time) out of every row."""
    for row in (stats.total, *stats.entries.values()):
        for counts in (row.num_reqs_per_sec, row.num_fail_per_sec):
            for old in [each for each in counts if each < second]:
                del counts[old]


# --- after a run ---


def analyse(run: RunState) -> int:
    """Analyse a closed run in a child, no pandas under gevent; it prints its table. The child's exit code.

    A second signal ends it: nobody has to wait for the report of a long run.
    """
    code = _child_ended(run, [sys.executable, "-P", "-m", "analysis", str(run.writer.path)])
    return code if code in (exits.OK, exits.MISSED) else exits.INVALID


def _child_ended(run: RunState, command: list[str]) -> int:
    """Wait for a command to end, or end it on a second signal; its exit code."""
    sys.stdout.flush()
    # In a session of its own: Ctrl-C must not take the report away from who asked for a partial one.
    with subprocess.Popen(command, start_new_session=True) as child:
        while child.poll() is None:
            if run.end_at_once.wait(0.1):
                child.terminate()
                break
    return child.returncode


def send_spans(run: RunState, endpoint: str) -> None:
    """Send a closed run to an OpenTelemetry collector, in a child, which says what was sent or why not."""
    command = [sys.executable, "-P", "-m", "analysis.exports", str(run.writer.path)]
    _child_ended(run, [*command, "--to", "otlp", "--endpoint", endpoint])


def exit_code_of(run: RunState, of_analysis: int, stopped_by: int | None) -> int:
    """The run's exit code: the analysis's, unless a signal ended it or it is INVALID by its own findings."""
    if stopped_by is not None:
        return exits.OF_SIGNAL[signal.Signals(stopped_by)]
    if any(finding.level == "invalid" for finding in run.manifest.findings):
        return exits.INVALID
    if of_analysis == exits.MISSED and run.prepared.shape.ends == "decided":
        return exits.OK  # it has to go beyond the limits to find where they are
    return of_analysis


def outlast_forked_workers() -> None:
    """Let the workers that Locust forked end before their parent: it forgets those that take a moment."""
    ourselves, until_s = psutil.Process(), time.monotonic() + _FORKED_END_S
    while time.monotonic() < until_s and ourselves.children():
        gevent.sleep(0.05)
