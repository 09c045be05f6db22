"""Hooks turnbench into Locust: what happens when Locust starts, starts a test, stops one, and ends."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

import gevent
from gevent.event import Event
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadgen.adapter._quiet import quiet_locust, take_keys
from loadgen.adapter._web import check_start_form, protect
from loadgen.control._capacity import find_capacity
from loadgen.control._conductor import Conductor
from loadgen.control._ending import (
    EXIT_OF_SIGNAL,
    INVALID,
    analysed,
    exit_code_of,
    note_exit,
    outlast_forked_workers,
)
from loadgen.control._guard import reason
from loadgen.control._levels import play_run
from loadgen.control._loads import first_users
from loadgen.control._roll_call import late_worker, look_for_lost
from loadgen.control._state import Run
from loadgen.control._worker import Worker
from loadgen.options._command_line import OptionErrors, add_options
from loadgen.options._prepare import Prepared, prepare

logger = logging.getLogger(__name__)


class Face:
    """One per Locust process: `worker` makes load, `conductor` directs; a lone process has both."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.runner: Any = environment.runner
        self.options: Any = environment.parsed_options
        self.worker: Worker | None = None
        self.conductor: Conductor | None = None
        self.prepared: Prepared | None = None
        self._main = gevent.getcurrent()
        self._signal: int | None = None
        self._run: Run | None = None
        """The run under way, until its analysis is over."""
        self._runs = 0
        self._idle = Event()
        self._idle.set()

    # --- at Locust's start ---

    def start(self, web_ui: Any) -> None:
        self.environment.stop_timeout = 0
        self.environment.process_exit_code = 0
        if not isinstance(self.runner, WorkerRunner):
            if self.options.headless:  # its checks may take seconds
                self._take_signals()
            self._become_conductor(web_ui)
            if not self.options.headless:
                self._take_signals()
        if not isinstance(self.runner, MasterRunner):
            self.worker = Worker(self.environment)
        if self.worker is not None and self.conductor is None and self.options.processes:
            # Ctrl-C in a terminal hits forked workers too; they end when the master says so.
            gevent.signal_handler(signal.SIGINT, lambda: None)

    def _take_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, self._on_signal, number)

    def _become_conductor(self, web_ui: Any) -> None:
        # Locust must not end the run by itself: it would lose the last records.
        self.options.turnbench_run_time_s, self.options.run_time = self.options.run_time, None
        self.options.turnbench_users_given = self.options.num_users is not None
        if self.options.host is None:
            self.options.host = self.environment.host = DEFAULT_HOST
        take_keys(self.options.headless)
        if self.options.headless:
            quiet_locust(self.options)
            self.prepared = self._prepare_or_exit()
            first = first_users(self.prepared.settings)
            if first is not None:
                self.options.num_users = first
                self.options.spawn_rate = self.options.spawn_rate or min(first, 100)
        self.conductor = Conductor(self.environment)
        if web_ui is not None:
            protect(web_ui, self.options)
            check_start_form(web_ui, self)

    def _prepare_or_exit(self) -> Prepared:
        try:
            return prepare(vars(self.options))
        except OptionErrors as error:
            for problem in error.problems:
                print(f"turnbench: {problem}", file=sys.stderr)
            raise SystemExit(2) from None

    # --- a run ---

    @property
    def busy(self) -> bool:
        """Whether a run is under way or being closed."""
        return not self._idle.is_set()

    def on_test_start(self) -> None:
        if self.conductor is None or self.busy:
            return
        try:
            prepared = self.prepared or prepare(vars(self.options))
            workers = len(self.conductor.worker_ids())
            if prepared.settings.once and prepared.settings.people < workers:
                raise OptionErrors([f"--once: {workers} workers need at least as many people; raise -u"])
            run = self.conductor.open_run(prepared, again=self._runs > 0)
        except (OptionErrors, OSError) as error:
            logger.error("turnbench: %s", error)
            self.environment.process_exit_code = 2
            gevent.spawn(self.runner.quit if self.options.headless else self.runner.stop)
            return
        self._runs += 1
        self._run = run
        self._idle.clear()
        gevent.spawn(self._drive, run)

    def _drive(self, run: Run) -> None:
        assert self.conductor is not None
        code = INVALID
        try:
            search = find_capacity if run.prepared.settings.find_capacity else None
            playing = gevent.spawn(play_run, self.conductor, run, search)
            playing.join()
            if playing.exception is not None:
                run.fault(reason(playing.exception))
            self.conductor.close_run(run)
            told = 0 if self.options.no_analysis else analysed(run)
            code = exit_code_of(run, told, self._signal)
        finally:  # whatever went wrong, Locust must not be left waiting
            note_exit(run, code)
            self._run = None
            self._idle.set()
            self._leave(run, code)

    def _leave(self, run: Run, code: int) -> None:
        if self.options.headless:
            self.environment.process_exit_code = code
            self.runner.quit()
            if self.options.processes:
                outlast_forked_workers()
        elif self._signal is not None:
            gevent.kill(self._main, KeyboardInterrupt)
        elif run.ending != "stopped":
            self.runner.stop()

    def on_test_stopping(self) -> None:
        if self.conductor is not None and self.conductor.run is not None:
            # Locust also stops by itself when its last worker is gone, and knows that already.
            look_for_lost(self.runner, self.conductor.run)
            self.conductor.run.locust_stopped = True
            self.conductor.run.end("stopped")

    def on_worker_connect(self, client_id: str) -> None:
        if self.conductor is not None and self.conductor.run is not None:
            late_worker(self.conductor.run, client_id)

    # --- the end ---

    def _on_signal(self, number: int) -> None:
        """First: drain and report. Second: at once."""
        run = self._run
        if run is not None and self._signal is None:
            self._signal = number
            logger.warning("%s: draining; once more ends at once", signal.Signals(number).name)
            run.end("interrupted")
        elif run is not None:
            run.hurry.set()
            run.stop.set()
        elif self._idle.is_set() and self.options.headless:
            gevent.kill(self._main, SystemExit(EXIT_OF_SIGNAL[signal.Signals(number)]))
        elif self._idle.is_set() and number == signal.SIGINT:
            gevent.kill(self._main, KeyboardInterrupt)

    def on_quitting(self) -> None:
        """Locust is about to end its runner: not before the run is closed and analysed."""
        if self.busy and self.conductor is not None and self.conductor.run is not None:
            self.conductor.run.end("interrupted")
        self._idle.wait()
        if self.worker is not None:
            self.worker.close()


DEFAULT_HOST = "http://127.0.0.1:8000"


faces: dict[int, Face] = {}
"""The process's face, by the id of its Environment."""


def face_of(environment: Environment) -> Face:
    return faces[id(environment)]


def register() -> None:
    """Add our listeners to Locust's events; called once, by the locustfile."""
    events.init_command_line_parser.add_listener(_on_parser)
    events.init.add_listener(_on_init)


def _on_parser(parser: Any, **_: Any) -> None:
    add_options(parser)
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")


def _on_init(environment: Environment, web_ui: Any = None, **_: Any) -> None:
    face = faces[id(environment)] = Face(environment)
    face.start(web_ui)
    environment.events.test_start.add_listener(lambda **_: face.on_test_start())
    environment.events.test_stopping.add_listener(lambda **_: face.on_test_stopping())
    # Registered now and not at import, so that it runs before Locust's own quitting listeners.
    environment.events.quitting.add_listener(lambda **_: face.on_quitting())
    environment.events.worker_connect.add_listener(lambda client_id, **_: face.on_worker_connect(client_id))
