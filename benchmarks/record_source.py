"""A locustfile for `benchmarks.master`: workers whose engine makes no load but sends records at a given rate.

Everything else of a worker is the real one: Locust's connection to the master, batches, counts, answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent

from loadgen import _messages as say
from loadgen.control import _worker
from turnbench.clock import Timeline

RATES_PER_S = [float(rate) for rate in os.environ["RECORDS_PER_S"].split(",")]
"""Records a second of this worker, a step each."""
STEP_S = float(os.environ["STEP_S"])
LINES = Path(os.environ["RECORDS"]).read_bytes().splitlines()
SENT = Path(os.environ["SENT"])
"""A folder: each worker writes there how many records it has sent."""
_TICK_S = 0.05


class RecordSource:
    """Stands for an engine: the same methods, the same messages, no process."""

    def __init__(self, on_message: Callable[[say.FromEngine], None], on_death: Callable[[str], None]) -> None:
        self._tell = on_message
        self._timeline = Timeline()
        self._sent = 0
        self._sending: Any = None

    def send(self, message: say.EngineMessage) -> None:
        """Answer a message as an engine does."""
        match message:
            case say.StartRun():
                self._tell(say.RunReady())
            case say.Ping(n):
                self._tell(say.Pong(n, self._timeline.now_ns()))
            case say.BeginLevel():
                self._sending = gevent.spawn(self._send_records)
            case say.CloseLevel(level):
                self._tell(say.LevelClosed(level, 0))
            case say.CutLevel(level):
                self._tell(say.LevelCut(level, 0))
            case say.StopTurns():
                gevent.kill(self._sending)
                self._tell(say.TurnsStopped())
            case say.FinishRun():
                self._tell(say.RunFinished())

    def close(self) -> None:
        """There is nothing to close."""

    def _send_records(self) -> None:
        began_s = gevent.get_hub().loop.now()
        due = 0.0
        at = open(SENT / str(os.getpid()), "wb", buffering=0)  # noqa: SIM115 (for the life of the process)
        while True:
            gevent.sleep(_TICK_S)
            step = int((gevent.get_hub().loop.now() - began_s) / STEP_S)
            if step >= len(RATES_PER_S):
                return
            due += RATES_PER_S[step] * _TICK_S
            while self._sent < due:
                line = LINES[self._sent % len(LINES)]
                self._sent += 1
                self._tell(say.TurnEnded(line, "explain", "ok", True, None, 100, None))
            self._tell(say.TurnBegun(self._sent, 0, self._sent, self._sent))
            os.pwrite(at.fileno(), b"%020d" % self._sent, 0)


_worker.EngineLink = RecordSource  # type: ignore[assignment,misc]
# Locust's statistics cost a worker more than its records do, and the master nothing that grows with them.
_worker.Worker._feed_statistics = lambda *_: None  # type: ignore[method-assign]

from loadgen.locustfile import Person  # noqa: E402

__all__ = ["Person"]
