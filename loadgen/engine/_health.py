"""One line a second about the engine itself: is it the client that is slow?"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import psutil

from loadgen._messages import HealthSampled
from loadgen.engine._run import EngineRun
from turnbench.clock import Timeline
from turnbench.formats import HealthLine

_TICK_S = 0.02


class LoopLag:
    """How late the event loop wakes a sleeper; the worst since the last look."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._worst_ns = 0

    async def run(self) -> None:
        while True:
            due_ns = self._timeline.now_ns() + int(_TICK_S * 1e9)
            await asyncio.sleep(_TICK_S)
            self._worst_ns = max(self._worst_ns, self._timeline.now_ns() - due_ns)

    def take_ms(self) -> float:
        worst, self._worst_ns = self._worst_ns, 0
        return round(worst / 1e6, 3)


class Stolen:
    """What the host of a virtual machine took of its CPU time since the last look (`steal` in proc(5)).

    A stopped CPU stamps nothing, so what came meanwhile looks late by either clock.
    """

    def __init__(self) -> None:
        self._before = psutil.cpu_times(percpu=True)

    def take_share(self) -> float | None:
        """Of the time of the CPU that lost the most; None where the system does not tell."""
        before, self._before = self._before, psutil.cpu_times(percpu=True)
        shares = [_stolen_share(*pair) for pair in zip(before, self._before, strict=False)]
        return max((share for share in shares if share is not None), default=None)


def _stolen_share(before: Any, after: Any) -> float | None:
    passed = {name: value - getattr(before, name) for name, value in after._asdict().items()}
    if "steal" not in passed:
        return None
    total_s = sum(passed.values()) - passed["guest"] - passed["guest_nice"]  # they are in user and nice
    return round(min(max(passed["steal"] / total_s, 0.0), 1.0), 4) if total_s > 0 else None


class Health:
    """Makes the health lines of one worker."""

    def __init__(self, run: EngineRun) -> None:
        self._run = run
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._stolen = Stolen()
        self.lag = LoopLag(run.timeline)

    def line(self) -> bytes:
        """The next line of health-W.jsonl; lag, CPU and stolen time are those since the line before."""
        ledger = self._run.ledger
        return msgspec.json.encode(
            HealthLine(
                t_ns=self._run.timeline.now_ns(),
                worker=self._run.job.worker,
                loop_lag_ms=self.lag.take_ms(),
                cpu_share=round(self._process.cpu_percent() / 100, 4),
                stolen_share=self._stolen.take_share(),
                rss_mb=round(self._process.memory_info().rss / 1e6, 1),
                files=self._process.num_fds(),
                in_flight=len(self._run.in_flight),
                planned=ledger.planned,
                dropped=ledger.dropped,
                begun=ledger.begun,
                finished=ledger.finished,
            )
        )

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._run.emit(HealthSampled(self.line()))
