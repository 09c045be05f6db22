"""The side of a run that makes load: Locust users, the engine, and what is sent on to the conductor."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import gevent
import msgspec
from gevent.event import Event
from locust.env import Environment
from locust.runners import WorkerRunner

from loadgen._messages import (
    ConversationEnded,
    FromEngine,
    HealthSampled,
    NothingToPlay,
    PlayConversation,
    RunFinished,
    RunReady,
    ServerSampled,
    StartRun,
    ToEngine,
    TurnEnded,
    UserLeaves,
)
from loadgen.control._bridge import Bridge
from loadgen.control._guard import spawn_guarded

logger = logging.getLogger(__name__)

TO_WORKER, TO_CONDUCTOR = "turnbench-to-worker", "turnbench-to-conductor"
"""Locust message types; the data's `op` says which message it is."""

_NO_FAILURE = ("ok", "cut", "unfinished", "dropped", "abandoned")
"""Outcomes that are no failure of the server; it takes a measurement to say what they mean."""
_BATCH_S = 0.25
_BATCH_LINES = 500
_MASTER_SILENCE_S = 5.0
_LOADED_BY = os.getpid()
"""Locust forks its workers (--processes) after it has loaded this: in them it is their parent's."""


class Worker:
    """Runs one engine and gives its people to Locust's users."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.runner: Any = environment.runner
        self._bridge: Bridge | None = None
        self._ready = Event()
        self._waiting: dict[int, Event] = {}
        self._exhausted: set[int] = set()
        self._users = 0
        self._run = ""
        self._lines: list[tuple[str, bytes]] = []
        self._turns = self._failed = 0
        self._batches = 0
        self._records = 0
        self._heard_s: float | None = None
        self.runner.register_message(TO_WORKER, self._on_message)
        self._start_engine()
        spawn_guarded(self._on_engine_death, self._send_batches)
        if isinstance(self.runner, WorkerRunner):
            spawn_guarded(self._on_engine_death, self._watch_master)

    # --- Locust's users ---

    def converse(self) -> None:
        """Play one conversation, in the engine; called by a Locust user, returns when it has ended."""
        self._ready.wait()
        self._users += 1
        user = self._users
        ended = self._waiting[user] = Event()
        self._send(PlayConversation(user))
        try:
            ended.wait()
        finally:
            del self._waiting[user]
            if not ended.is_set():  # Locust killed this user: no further turn, the open one goes on
                self._send(UserLeaves(user))
        if user in self._exhausted:
            Event().wait()  # nothing is left to play; the conductor ends the level

    # --- messages of the conductor ---

    def _on_message(self, environment: Environment, msg: Any, **_: Any) -> None:
        message = msg.data
        op = message["op"]
        self._heard_s = time.monotonic()
        match op:
            case "beat":
                return
            case "job":
                self._begin(message)
            case _:
                self._send(msgspec.convert(message, ToEngine))

    def _begin(self, message: dict[str, Any]) -> None:
        if message["job"]["run"] == self._run:
            return  # told again, since the master had not heard that we are ready
        self._batches = self._records = 0
        self._lines, self._exhausted = [], set()
        self._run = message["job"]["run"]
        if self._bridge is None:
            self._start_engine()
        self._send(msgspec.convert(message, StartRun))

    # --- messages of the engine ---

    def _on_engine(self, message: FromEngine) -> None:
        match message:
            case TurnEnded():
                self._lines.append(("turns", message.line))
                self._records += 1
                self._turns += message.done
                self._failed += message.done and message.outcome not in _NO_FAILURE
                self._show(message)
            case HealthSampled(line):
                self._lines.append(("health", line))
            case ServerSampled(line):
                self._lines.append(("server", line))
            case ConversationEnded(user):
                self._release(user)
            case NothingToPlay(user):
                self._exhausted.add(user)
                self._release(user)
                self._tell("exhausted", users=len(self._exhausted))
            case RunReady():
                self._ready.set()
                self._tell("ready")
            case RunFinished():
                self._ready.clear()
                self._flush()
                self._tell("done", batches=self._batches, records=self._records)
            case _:
                self._tell(**msgspec.to_builtins(message))

    def _release(self, user: int) -> None:
        if user in self._waiting:
            self._waiting[user].set()

    def _show(self, turn: TurnEnded) -> None:
        """Feed Locust's own statistics: for its web UI only, the run directory holds the numbers."""
        failure = None if turn.outcome == "ok" else RuntimeError(f"{turn.outcome}: {turn.error}")
        for kind, wait_ms in (("TTFT", turn.ttft_ms), ("TTG", turn.ttg_ms)):
            if wait_ms is not None or failure is not None:
                self.environment.events.request.fire(
                    request_type=kind,
                    name=turn.task,
                    response_time=wait_ms or 0.0,
                    response_length=turn.chars,
                    exception=failure,
                    context={},
                )

    def _on_engine_death(self, why: str) -> None:
        self.close()
        self._ready.clear()
        self._flush()
        self._tell("engine_lost", why=why)

    # --- plumbing ---

    def _start_engine(self) -> None:
        self._bridge = Bridge(self._on_engine, self._on_engine_death)

    def _send(self, message: ToEngine) -> None:
        if self._bridge is not None:
            self._bridge.send(message)

    def _tell(self, op: str, **fields: Any) -> None:
        self.runner.send_message(TO_CONDUCTOR, {"op": op, "run": self._run, **fields})

    def _send_batches(self) -> None:
        while True:
            gevent.sleep(_BATCH_S)
            self._flush()

    def _flush(self) -> None:
        while self._lines:
            lines, self._lines = self._lines[:_BATCH_LINES], self._lines[_BATCH_LINES:]
            self._batches += 1
            counts = {"turns": self._turns, "failed": self._failed}
            self._turns = self._failed = 0
            self._tell("batch", n=self._batches, lines=lines, **counts)

    def _watch_master(self) -> None:
        """A worker whose master is silent must not go on loading the server, nor a forked one outlive it."""
        forked = os.getpid() != _LOADED_BY
        while not forked or os.getppid() == _LOADED_BY:
            gevent.sleep(0.5)
            if self._heard_s is not None and time.monotonic() - self._heard_s > _MASTER_SILENCE_S:
                logger.error("no word from the master for %g s: stopping the load", _MASTER_SILENCE_S)
                break
        self.close()
        os._exit(3)

    def close(self) -> None:
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None
