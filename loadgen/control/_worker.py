"""The side of a run that makes load: Locust's users, the engine's process, and what goes to the controller.

Two greenlets own the socket to the engine, one writes and one reads: two writers at once would raise
ConcurrentObjectUseError. Records go on to the controller in numbered batches, so that a missing one shows.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import gevent
import msgspec
from gevent.event import Event
from gevent.queue import Queue
from locust.env import Environment
from locust.runners import WorkerRunner

from loadgen._messages import (
    FROM_ENGINE,
    EngineMessage,
    FromEngine,
    GpuSampled,
    HealthSampled,
    LevelCut,
    NothingToPlay,
    PlayConversations,
    RunFinished,
    RunReady,
    ServerSampled,
    StartRun,
    ToEngine,
    TurnBegun,
    TurnEnded,
    Unpacker,
    UserDone,
    UserLeaves,
    pack,
)
from loadgen.control._state import spawn_guarded
from loadgen.options._headers import secrets_here
from turnbench import exits
from turnbench.credentials import Secrets
from turnbench.outcomes import ANSWERED, FAILED, NOT_MEASURED, UNANSWERED

logger = logging.getLogger(__name__)

TO_WORKER, TO_CONTROLLER = "turnbench-to-worker", "turnbench-to-controller"
"""Locust message types; the data's `op` says which message it is."""

_BATCH_S = 0.25
_COUNTS_S = 0.05
"""How often the controller hears at most of turns that began: after a kill it knows how many are lost."""
_BATCH_LINES = 500
_MASTER_SILENCE_S = 5.0
_MOST_ERRORS = 200
"""Locust has a row for each error of another text, and many a server says the time or a number in each."""
_STDERR_TAIL_BYTES = 2000
_LOADED_BY = os.getpid()
"""Locust forks its workers (--processes) after it has loaded this: in them it is their parent's."""


class EngineLink:
    """A running engine. `on_message` gets each message, `on_death` once the reason why there are no more."""

    def __init__(self, on_message: Callable[[FromEngine], None], on_death: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._on_death = on_death
        self._closing = False
        self._outbox: Queue[bytes] = Queue()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (read after the engine's death)
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._process: subprocess.Popen[bytes] | None = None
        self._started = Event()
        spawn_guarded(self._on_failure, self._start, theirs)

    def _start(self, theirs: socket.socket) -> None:
        """Start the process, in a greenlet: a busy machine takes seconds between fork and exec.

        Other greenlets run meanwhile, so the link must be known to them by then: messages wait in the outbox.
        """
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "loadgen.engine", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,  # Ctrl-C in a terminal must not hit it
            )
        except OSError as error:
            if not self._closing:
                self.close()
                self._on_death(f"the engine could not be started: {error}")
            return
        finally:
            theirs.close()
            self._started.set()
        spawn_guarded(self._on_failure, self._write)
        spawn_guarded(self._on_failure, self._read)

    def send(self, message: EngineMessage) -> None:
        """Send the engine a message; it is written by a greenlet of its own."""
        self._outbox.put(pack(message))

    def close(self) -> None:
        """Let the engine end: it does so when the socket closes."""
        self._closing = True
        self._socket.close()

    def wait(self) -> int:
        """Wait for the process to end; its exit code, negative for a signal."""
        self._started.wait()
        return -1 if self._process is None else self._process.wait()

    def _write(self) -> None:
        try:
            for data in self._outbox:
                self._socket.sendall(data)
        except OSError:
            return  # the reader reports the engine's death

    def _read(self) -> None:
        unpacker = Unpacker(FROM_ENGINE)
        try:
            while data := self._socket.recv(1 << 16):
                for message in unpacker.feed(data):
                    self._on_message(message)
        except OSError:
            pass
        if not self._closing:
            self._on_death(self._last_words())

    def _on_failure(self, why: str) -> None:
        """A message that can't be read or understood: without its engine a run can only end."""
        if not self._closing:
            self.close()
            self._on_death(f"a message between Locust and its engine was not understood: {why}")

    def _last_words(self) -> str:
        """How the engine ended, and the end of its standard error."""
        code = self.wait()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(size - _STDERR_TAIL_BYTES, 0))
        tail = self._stderr.read().decode("utf-8", "replace").strip()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"engine ended with {how}" + (f"; its last output: {tail}" if tail else "")


class Worker:
    """Runs one engine, and has it play conversations for each of Locust's users."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.runner: Any = environment.runner
        self._engine: EngineLink | None = None
        self._ready = Event()
        self._waiting: dict[int, Event] = {}
        self._exhausted: set[int] = set()
        self._users = 0
        self._run = ""
        self._secrets = Secrets()
        self._lines: list[tuple[str, bytes]] = []
        self._errors: set[str] = set()
        """What failed turns of the run have said, as Locust has it."""
        self._turns = self._answered = self._failed = self._unanswered = 0
        self._batches = 0
        self._records = 0
        self._counts: TurnBegun | None = None
        self._counts_wait = False
        self._master_seen_s: float | None = None
        self.runner.register_message(TO_WORKER, self._on_message)
        self._start_engine()
        spawn_guarded(self._on_engine_death, self._send_batches)
        if isinstance(self.runner, WorkerRunner):
            spawn_guarded(self._on_engine_death, self._watch_master)

    # --- Locust's users ---

    def converse(self) -> None:
        """Play conversations, in the engine, until the level ends; called by a Locust user.

        The engine does not ask between two of them: on a shared core each answer would wait for Locust.
        """
        self._ready.wait()
        self._users += 1
        user = self._users
        ended = self._waiting[user] = Event()
        self._send(PlayConversations(user))
        try:
            ended.wait()
        finally:
            del self._waiting[user]
            if not ended.is_set():  # Locust killed this user: no further turn, the open one goes on
                self._send(UserLeaves(user))
        if user in self._exhausted:
            Event().wait()  # nothing is left to play; the controller ends the level

    # --- messages of the controller ---

    def _on_message(self, environment: Environment, msg: Any, **_: Any) -> None:
        message = msg.data
        self._master_seen_s = time.monotonic()
        match message["op"]:
            case "heartbeat":
                return
            case "job":
                self._take_job(message)
            case _:
                self._send(msgspec.convert(message, ToEngine))

    def _take_job(self, message: dict[str, Any]) -> None:
        if message["job"]["run"] == self._run:
            return  # sent again, since our `ready` had not come to the master yet
        self._batches = self._records = 0
        self._lines, self._exhausted, self._errors, self._counts = [], set(), set(), None
        self._run = message["job"]["run"]
        if self._engine is None:
            self._start_engine()
        start = msgspec.convert(message, StartRun)
        self._secrets = secrets_here(start.job.settings)
        self._send(start)

    # --- messages of the engine ---

    def _on_engine(self, message: FromEngine) -> None:
        match message:
            case TurnEnded():
                self._lines.append(("turns", message.line))
                self._records += 1
                self._turns += message.done
                self._answered += message.done and message.outcome in ANSWERED
                self._failed += message.done and message.outcome in FAILED
                self._unanswered += message.done and message.outcome in UNANSWERED
                self._feed_statistics(message)
            case TurnBegun():
                self._counts = message
                if not self._counts_wait:
                    self._counts_wait = True
                    self._report_counts()
                    gevent.spawn_later(_COUNTS_S, self._report_late_counts)
            case HealthSampled(line):
                self._lines.append(("health", line))
            case ServerSampled(line):
                self._lines.append(("server", line))
            case GpuSampled(line):
                self._lines.append(("gpu", line))
            case UserDone(user):
                self._release(user)
            case NothingToPlay(user):
                self._exhausted.add(user)
                self._release(user)
                self._report("exhausted", users=len(self._exhausted))
            case LevelCut():
                self._flush()  # whoever hears that a level is over has all its records
                self._report(**msgspec.to_builtins(message))
            case RunReady():
                self._ready.set()
                self._report("ready")
            case RunFinished():
                self._ready.clear()
                self._flush()
                self._report("done", batches=self._batches, records=self._records)
            case _:
                self._report(**msgspec.to_builtins(message))

    def _report_counts(self) -> None:
        counts, self._counts = self._counts, None
        if counts is not None:
            self._report("counts", **{name: getattr(counts, name) for name in counts.__struct_fields__})

    def _report_late_counts(self) -> None:
        self._counts_wait = False
        self._report_counts()

    def _release(self, user: int) -> None:
        if user in self._waiting:
            self._waiting[user].set()

    def _feed_statistics(self, turn: TurnEnded) -> None:
        """Feed Locust's own statistics, one request a turn: for its web UI only, where it is a row a task.

        Their time is the TTG; the tab Conversations has the rest. A row of two kinds of waits would mean
        nothing, and an unanswered turn has no time.
        """
        if not turn.done or turn.outcome in NOT_MEASURED:
            return
        why = None
        if turn.outcome in UNANSWERED:
            why = f"{turn.outcome}: {turn.error}"
            if len(self._errors) < _MOST_ERRORS:
                self._errors.add(why)
            elif why not in self._errors:
                why = turn.outcome
        self.environment.events.request.fire(
            request_type="TTG",
            name=turn.task,
            response_time=turn.ttg_ms if turn.outcome in ANSWERED else None,
            response_length=turn.chars,
            exception=None if why is None else RuntimeError(why),
            context={},
        )

    def _on_engine_death(self, why: str) -> None:
        self.close()
        self._ready.clear()
        self._flush()
        self._report_counts()
        self._report("engine_lost", why=self._secrets.scrubbed(why))

    # --- plumbing ---

    def _start_engine(self) -> None:
        self._engine = EngineLink(self._on_engine, self._on_engine_death)

    def _send(self, message: ToEngine) -> None:
        if self._engine is not None:
            self._engine.send(message)

    def _report(self, op: str, **fields: Any) -> None:
        self.runner.send_message(TO_CONTROLLER, {"op": op, "run": self._run, **fields})

    def _send_batches(self) -> None:
        while True:
            gevent.sleep(_BATCH_S)
            self._flush()

    def _flush(self) -> None:
        while self._lines:
            lines, self._lines = self._lines[:_BATCH_LINES], self._lines[_BATCH_LINES:]
            self._batches += 1
            counts = {"turns": self._turns, "answered": self._answered}
            counts |= {"failed": self._failed, "unanswered": self._unanswered}
            self._turns = self._answered = self._failed = self._unanswered = 0
            self._report("batch", n=self._batches, lines=lines, **counts)

    def _watch_master(self) -> None:
        """A worker whose master is silent must not go on loading the server, nor a forked one outlive it."""
        forked = os.getpid() != _LOADED_BY
        while not forked or os.getppid() == _LOADED_BY:
            gevent.sleep(0.5)
            if self._master_seen_s is not None and time.monotonic() - self._master_seen_s > _MASTER_SILENCE_S:
                logger.error("nothing from the master for %g s: stopping the load", _MASTER_SILENCE_S)
                break
        self.close()
        os._exit(exits.INVALID)

    def close(self) -> None:
        """Let the engine end."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
