"""Connects turnbench to Locust: what happens when Locust starts, starts a test, stops one, and ends.

Relies on how Locust 2.47 really behaves: its run time limit and its own end would lose the last records, so
`init` takes the run time away, our own signal handlers are installed there, and a run ends by an exchange
of our own messages before Locust may quit.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import gevent
import locust.main
from gevent.event import Event
from locust import events
from locust.env import Environment
from locust.event import EventHook
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import StatsCSVFileWriter

from loadgen.adapter._page import add_to_page
from loadgen.adapter._web import check_start_form, protect
from loadgen.control._controller import (
    RunController,
    analyse,
    exit_code_of,
    outlast_forked_workers,
    send_spans,
)
from loadgen.control._findings import NOTHING_ANSWERED
from loadgen.control._levels import play_run
from loadgen.control._live import LiveSnapshot
from loadgen.control._state import RunState, reason
from loadgen.control._worker import Worker
from loadgen.options._command_line import OPTIONS, OptionErrors, add_options
from loadgen.options._prepare import Prepared, prepare
from loadgen.options._values import new_folder
from turnbench import exits
from turnbench.problems import quoted

if TYPE_CHECKING:
    from loadgen.control._prometheus import PrometheusPage

logger = logging.getLogger(__name__)

_LOCUST_PORT = 5557
DEFAULT_HOST = "http://127.0.0.1:8000"

_LOCUSTS_FILES = {
    "--html": "html_file",
    "--json-file": "json_file",
    "--csv": "csv_prefix",
    "--logfile": "logfile",
}
"""Files that Locust writes itself, by their key among the parsed options."""

_MISLEADING = (
    "No run time limit set",  # our own clock ends the run
    "Ramping to",
    "Sending spawn jobs",
    "All users spawned",  # our progress shows the people
)
_CHANGES_A_RUN = (
    "host", "num_users", "spawn_rate", "run_time", "processes", "headless", "autostart", "autoquit",
    "stop_timeout", "expect_workers", "master", "worker",
)  # fmt: skip
"""Locust's options that say what load there is, and from where."""
_FAILED = "turnbench itself failed: %s; please report it, with what --loglevel DEBUG shows"
_BROWSER_KEYS = ("\r", "\n")


class LocustAdapter:
    """One per Locust process: `worker` makes load, `controller` directs; a lone process has both."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.runner: Any = environment.runner
        self.options: Any = environment.parsed_options
        self.worker: Worker | None = None
        self.controller: RunController | None = None
        self.prepared: Prepared | None = None
        self._page: PrometheusPage | None = None
        self._main = gevent.getcurrent()
        self._signal: int | None = None
        self._run: RunState | None = None
        """The run under way, until its analysis is over."""
        self._runs = 0
        self.last_report: Path | None = None
        """Of the newest run; it is written when that has ended."""
        self._idle = Event()
        self._idle.set()

    # --- at Locust's start ---

    def start(self, web_ui: Any) -> None:
        """Set up this process's side: the controller on the master, a worker where load is made."""
        if not self.options.headless or isinstance(self.runner, WorkerRunner):  # Locust ends these in order
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.environment.stop_timeout = 0
        self.environment.process_exit_code = exits.OK
        if not isinstance(self.runner, WorkerRunner):
            if self.options.headless:  # its checks may take seconds
                self._take_signals()
            self._start_controller(web_ui)
            if not self.options.headless:
                self._take_signals()
        if not isinstance(self.runner, MasterRunner):
            self.worker = Worker(self.environment)
        if self.worker is not None and self.controller is None and self.options.processes:
            # Ctrl-C in a terminal, or its end, hits forked workers too; they end when the master says so.
            for number in (signal.SIGINT, signal.SIGHUP):
                gevent.signal_handler(number, lambda: None)
            # Locust takes the names of its other files away from them itself.
            self.options.json = self.options.json_file = None

    def _take_signals(self) -> None:
        gevent.signal_handler(signal.SIGUSR1, self.end_after_level)
        for number in exits.OF_SIGNAL:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
                gevent.signal_handler(number, self._on_signal, number)

    def _start_controller(self, web_ui: Any) -> None:
        # Locust must not end the run by itself: it would lose the last records.
        self.options.turnbench_run_time_s, self.options.run_time = self.options.run_time, None
        self.options.turnbench_users_given = self.options.num_users is not None
        if self.options.host is None:
            self.options.host = self.environment.host = DEFAULT_HOST
        _disable_keys(self.options.headless)
        if self.options.headless:
            _quiet_locust(self.options)
            self.prepared = self._prepare_or_exit()
            shape = self.prepared.shape
            self.options.num_users = shape.start_users
            self.options.spawn_rate = shape.spawn_rate_per_s(shape.start_users)
        self.controller = RunController(self.environment)
        self._open_metrics_page()
        if web_ui is not None:
            protect(web_ui, self.options)
            check_start_form(web_ui, self)
            add_to_page(web_ui, self)

    def _prepare_or_exit(self) -> Prepared:
        try:
            return prepare(vars(self.options))
        except OptionErrors as error:
            for problem in error.problems:
                print(f"turnbench: {problem}", file=sys.stderr)
            if self.options.turnbench_untyped:
                print(f"turnbench: not typed, but set: {self.options.turnbench_untyped}", file=sys.stderr)
            raise SystemExit(exits.BAD_CONFIGURATION) from None

    def _open_metrics_page(self) -> None:
        option = next(each for each in OPTIONS if each.dest == "metrics_port")
        problems: list[str] = []
        at = option.read(self.options.metrics_port, problems)
        if problems:
            _refuse(problems[0])
        if at is None:
            return
        from loadgen.control._prometheus import PrometheusPage  # half a second that most need not wait

        try:
            self._page = PrometheusPage(at)
        except OSError as error:
            _refuse(f"--metrics-port {at}: {error.strerror or error}; name another port")

    # --- a run ---

    @property
    def busy(self) -> bool:
        """Whether a run is under way or being closed."""
        return not self._idle.is_set()

    def on_test_start(self) -> None:
        """Locust starts its users: open a run and play it in a greenlet of its own."""
        if self.controller is None or self.busy:
            return
        try:
            prepared = self.prepared or prepare(vars(self.options))
            if problems := prepared.shape.too_few_people(len(self.controller.worker_ids())):
                raise OptionErrors(problems)
            run = self.controller.open_run(prepared, again=self._runs > 0)
        except (OptionErrors, OSError) as error:
            logger.error("turnbench: %s", error)
            self._end_without_run(exits.BAD_CONFIGURATION)
            return
        self._runs += 1
        self._run = run
        self.last_report = run.writer.path / "report.html"
        self._idle.clear()
        gevent.spawn(self._drive, run)
        if self._page is not None:
            self._page.show(run, lambda: run.snapshot(self.runner.user_count))

    def _end_without_run(self, code: int) -> None:
        self.environment.process_exit_code = code
        gevent.spawn(self.runner.quit if self.options.headless else self.runner.stop)

    def fail(self, error: Exception) -> None:
        """What broke in a listener ends the run, or Locust if there is none: nobody waits for ever."""
        if self._run is not None:
            self._run.fault(reason(error))
            return
        logger.error(_FAILED, reason(error))
        if self.controller is not None:
            self._end_without_run(exits.INVALID)

    def _drive(self, run: RunState) -> None:
        assert self.controller is not None
        code = exits.INVALID
        try:
            playing = gevent.spawn(play_run, self.controller, run)
            playing.join()
            if playing.exception is not None:
                run.fault(reason(playing.exception))
            self.controller.close_run(run)
            if run.prepared.settings.no_analysis and not run.answered and self._signal is None:
                run.report(NOTHING_ANSWERED.finding())  # the analysis would find that
            of_analysis = exits.OK if run.prepared.settings.no_analysis else analyse(run)
            code = exit_code_of(run, of_analysis, self._signal)
            if (collector := run.prepared.settings.otlp) is not None and not run.end_at_once.is_set():
                send_spans(run, collector)
        finally:  # whatever went wrong, Locust must not be left waiting
            run.save_exit_code(code)
            self._run = None
            self._idle.set()
            self._end_locust(run, code)

    def _end_locust(self, run: RunState, code: int) -> None:
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
        """Locust stops its users: by its stop button, or since its last worker is gone."""
        if self.controller is not None and self.controller.run is not None:
            # Locust also stops by itself when its last worker is gone, and knows that already.
            self.controller.look_for_lost(self.controller.run)
            self.controller.run.locust_stopped = True
            self.controller.run.end("stopped")

    # --- who looks on ---

    def look(self) -> LiveSnapshot:
        """What Locust's page shows of the run under way."""
        run = self.controller.run if self.controller is not None else None
        if run is not None and self.controller is not None:
            return self.controller.look(run)
        report = self.last_report is not None and self.last_report.is_file()
        return LiveSnapshot(run=None, phase="being analysed" if self.busy else "over", report=report)

    def end_after_level(self) -> bool:
        """Let the level under way be the last one; False if there is none."""
        run = self._run
        if run is None or run.stop.is_set():
            return False
        if not run.last_level:
            run.last_level = True
            logger.warning("the run ends after this level")
        return True

    def on_worker_connect(self, client_id: str) -> None:
        """A worker joined."""
        if self.controller is not None:
            self.controller.refuse_late_worker(client_id)

    # --- the end ---

    def _on_signal(self, number: int) -> None:
        """First: drain and report. Second: at once."""
        run = self._run
        if run is not None and self._signal is None:
            self._signal = number
            logger.warning("%s: draining; once more ends at once", signal.Signals(number).name)
            run.end("interrupted")
        elif run is not None:
            run.end_at_once.set()
            run.stop.set()
        elif self._idle.is_set() and self.options.headless:
            gevent.kill(self._main, SystemExit(exits.OF_SIGNAL[signal.Signals(number)]))
        elif self._idle.is_set() and number != signal.SIGTERM:  # of which Locust has a handler of its own
            gevent.kill(self._main, KeyboardInterrupt)

    def on_quitting(self) -> None:
        """Locust is about to end its runner: not before the run is closed and analysed."""
        if self.busy and self.controller is not None and self.controller.run is not None:
            self.controller.run.end("interrupted")
        self._idle.wait()
        if self.worker is not None:
            self.worker.close()


_adapters: dict[int, LocustAdapter] = {}
"""The process's adapter, by the id of its Environment."""


def adapter_of(environment: Environment) -> LocustAdapter:
    """The adapter of this process, made in Locust's `init`."""
    return _adapters[id(environment)]


def register() -> None:
    """Add our listeners to Locust's events; called once, by the locustfile."""

    def on_parser(parser: Any, **_: Any) -> None:
        add_options(parser)
        parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")
        _choose_master_port(parser)

    def on_init(environment: Environment, web_ui: Any = None, **_: Any) -> None:
        adapter = _adapters[id(environment)] = LocustAdapter(environment)
        _guarded(adapter.start, lambda error: _refuse(_FAILED % reason(error), exits.INVALID))(web_ui=web_ui)

        def listen(event: EventHook, work: Callable[..., object]) -> None:
            event.add_listener(_guarded(work, adapter.fail))

        listeners = environment.events
        listen(listeners.test_start, lambda **_: adapter.on_test_start())
        listen(listeners.test_stopping, lambda **_: adapter.on_test_stopping())
        # Registered now and not at import, so that it runs before Locust's own quitting listeners.
        listen(listeners.quitting, lambda **_: adapter.on_quitting())
        listen(listeners.quit, lambda **_: end_csv_writer())
        listen(listeners.worker_connect, lambda client_id, **_: adapter.on_worker_connect(client_id))

    events.init_command_line_parser.add_listener(on_parser)
    events.init.add_listener(on_init)


def _guarded(work: Callable[..., object], failed: Callable[[Exception], object]) -> Callable[..., None]:
    """The same for Locust, which would log whatever breaks in it and go on without it."""

    def listener(**arguments: Any) -> None:
        try:
            work(**arguments)
        except Exception as error:
            logger.debug("where turnbench failed", exc_info=error)
            failed(error)

    return listener


def end_csv_writer() -> None:
    """End the greenlet that writes Locust's --csv files.

    Locust closes them right after this and lets it go on: its next write would end in a traceback.
    """
    for each in gc.get_objects():
        runs = getattr(each, "_run", None) if isinstance(each, gevent.Greenlet) else None
        if getattr(runs, "__func__", None) is StatsCSVFileWriter.stats_writer:
            each.kill()


def _free_port() -> int:
    """A free port below those that the kernel hands out, so that nobody gets it before the master has it."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


@cache  # before anything is forked, and not again when the port is ours
def _require_free_port(host: str, port: int) -> None:
    """Exit 2 if the master cannot listen there: Locust would fork its workers first and then fail."""
    try:
        if not 0 <= port <= 65535:
            raise OverflowError("a port is a number up to 65535")
        (family, *_, where), *_ = socket.getaddrinfo(
            None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        remedy = "name another port, or none with --processes, which takes a free one"
        _refuse(f"--master-bind-port {port} on {host}: {why}; {remedy}")


def _require_place(flag: str, path: str) -> None:
    """Exit 2 if no file can be written there: Locust would find out when the run is over."""
    try:
        new_folder(path)
    except ValueError as error:
        _refuse(f"{flag} {': '.join(error.args)}")
    if flag == "--logfile" and not os.path.isdir(os.path.dirname(path) or "."):  # it makes the others'
        _refuse(f"{flag} {quoted(path)}: there is no such folder; make it first")


def _refuse(problem: str, code: int = exits.BAD_CONFIGURATION) -> NoReturn:
    print(f"turnbench: {problem}", file=sys.stderr)
    raise SystemExit(code)


def _choose_master_port(parser: Any) -> None:
    """Give --processes a free port, unless one is named: two runs would meet on Locust's fixed one."""
    parse = parser.parse_args
    parser.set_defaults(master_bind_port=None, master_port=None)

    def parse_args(*args: Any, **more: Any) -> Any:
        options = parse(*args, **more)
        options.turnbench_untyped = _untyped(parser.get_source_to_settings_dict())
        named = [each for each in (options.master_bind_port, options.master_port) if each is not None]
        port = _free_port() if options.processes and not options.worker else _LOCUST_PORT
        port = named[0] if named else port  # 0: any that is free
        options.master_bind_port = port if options.master_bind_port is None else options.master_bind_port
        options.master_port = port if options.master_port is None else options.master_port
        forks = options.processes and not options.worker
        if options.processes is not None and options.processes < -1:
            _refuse(f"--processes {options.processes}: -1 is one for each core, else a number of processes")
        if forks and options.master:
            _refuse("--processes and --master exclude each other: the first makes a master; drop --master")
        for flag, name in _LOCUSTS_FILES.items():
            if path := getattr(options, name, None):
                _require_place(flag, path)
        if forks or options.master:
            _require_free_port(options.master_bind_host, options.master_bind_port)
        return options

    parser.parse_args = parse_args


def _untyped(sources: Mapping[str, Mapping[str, Any]]) -> str:
    """Options of Locust that nobody typed and that change a run, each with where it is from: the environment,
    or a file such as ~/.locust.conf. Ours are recorded with their values."""
    found = []
    for source, settings in sources.items():
        for name, (action, _) in settings.items():
            if source not in ("command_line", "defaults") and getattr(action, "dest", "") in _CHANGES_A_RUN:
                place = "environment" if source == "environment_variables" else source.partition("|")[2]
                found.append(f"{name} in the environment" if place == "environment" else f"{name} in {place}")
    return ", ".join(found)


# --- what of Locust's own is silenced, since it would mislead beside ours ---


def _quiet_locust(options: Any) -> None:
    """Headless: show Locust's own, rounded statistics only with --print-stats, and none of its progress."""
    if not options.print_stats:
        options.only_summary = True
        logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)
    for name in ("locust.main", "locust.runners"):
        logging.getLogger(name).addFilter(lambda record: not str(record.msg).startswith(_MISLEADING))


def _disable_keys(headless: bool) -> None:
    """Leave Locust's terminal no key that changes the load: w, W, s and S would, unrecorded.

    Locust makes its listener after `init`, from this name in its module; there is no option against it.
    With the web UI Enter still opens the browser; a headless run's terminal is left alone altogether.
    """
    listen: Any = locust.main.input_listener

    def harmless(keys: dict[str, Callable[[], Any]]) -> Any:
        if headless:
            return lambda: None
        return listen({key: work for key, work in keys.items() if key in _BROWSER_KEYS})

    locust.main.input_listener = harmless
