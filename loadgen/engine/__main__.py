"""The engine: a clean process, pure asyncio, that plays conversations and keeps all times.

Started by Locust's side as `python -m loadgen.engine FD`, FD being its end of a socket pair. It obeys the
messages that come over it, sends each finished turn back, and ends within a second of its parent's death.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import aiohttp

from loadgen._messages import (
    TO_ENGINE,
    BeginLevel,
    CloseLevel,
    CutLevel,
    EngineMessage,
    FinishRun,
    HealthSampled,
    Job,
    JobRefused,
    LevelClosed,
    LevelCut,
    MeasureWindow,
    NotOnTheWire,
    Ping,
    PlayConversations,
    Pong,
    RunFinished,
    RunReady,
    ShowAnswer,
    StartRun,
    StopTurns,
    ToEngine,
    TurnEnded,
    TurnsStopped,
    Unpacker,
    UserLeaves,
    pack,
)
from loadgen.dialects import DIALECTS
from loadgen.engine._driver import LoadDriver
from loadgen.engine._garbage import take_over
from loadgen.engine._health import Health, reset_prefix_cache, watch_gpus, watch_server
from loadgen.engine._run import EngineRun, watch
from loadgen.engine._selector import new_loop
from loadgen.engine._shown_answer import ShownAnswer
from loadgen.options._endpoint import address_of
from loadgen.options._headers import headers_of
from loadgen.options._tls import ssl_of
from loadgen.transport._http import open_session
from loadgen.transport._reader import StampedReader, open_reader
from scenarios import ScenarioError, fit_to_tokenizer, parse
from turnbench.clock import Timeline

_SPARE_FILES = 64
_LEAST_PORTS, _OPEN_LOOP_PORTS = 2048, 8192
_OUTBOX_S = 0.02


@dataclass(frozen=True)
class _PlayedRun:
    """What the run under way consists of, until the next one or its end."""

    driver: LoadDriver
    health: Health
    shown: ShownAnswer
    session: aiohttp.ClientSession
    reader: StampedReader

    async def close(self) -> None:
        self.driver.end()
        await self.session.close()
        self.reader.close()


class EngineProcess:
    """Obeys Locust's messages; plays one run after the other."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._timeline = Timeline()
        self._played: _PlayedRun | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._can_reset = True
        self._writer: asyncio.StreamWriter | None = None
        self._outbox = bytearray()
        self._sending: asyncio.TimerHandle | None = None

    def emit(self, message: EngineMessage) -> None:
        """Send Locust a message: at once, but for records, which wait a moment for others."""
        self._outbox += pack(message)
        if not isinstance(message, TurnEnded):
            self._send_outbox()
        elif self._sending is None:
            self._sending = asyncio.get_running_loop().call_later(_OUTBOX_S, self._send_outbox)

    def _send_outbox(self) -> None:
        assert self._writer is not None
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        self._writer.write(bytes(self._outbox))
        self._outbox.clear()

    async def run(self) -> None:
        """Until the other end is closed."""
        reader, self._writer = await asyncio.open_connection(sock=self._link)
        unpacker = Unpacker(TO_ENGINE)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                for message in unpacker.feed(data):
                    await self._obey(message)

    async def _obey(self, message: ToEngine) -> None:
        if isinstance(message, StartRun):
            await self._start_run(message.job)
        elif isinstance(message, Ping):
            self.emit(Pong(message.n, self._timeline.now_ns()))
        elif self._played is not None:  # what comes after a run's end is about nothing
            self._direct(self._played, message)

    def _direct(self, run: _PlayedRun, message: ToEngine) -> None:
        driver = run.driver
        match message:
            case PlayConversations(user):
                driver.play(user)
            case UserLeaves(user):
                driver.leave(user)
            case BeginLevel(level, arrivals):
                driver.begin_level(level, arrivals)
            case MeasureWindow(start_ns, end_ns):
                driver.measure(start_ns, end_ns)
            case CloseLevel(level, drain_s):
                self._spawn(self._close_level(driver, level, drain_s))
            case CutLevel(level):
                self._spawn(self._cut_level(driver, level))
            case StopTurns(drain_s):
                self._spawn(self._stop_turns(driver, drain_s))
            case FinishRun():
                self._spawn(self._finish_run(run))
            case ShowAnswer():
                self._spawn(run.shown.show())

    async def _start_run(self, job: Job) -> None:
        """Get ready for a run; answers RunReady, or JobRefused with what is wrong."""
        settings = job.settings
        try:
            scenario = parse(job.scenario)
            if job.measured is not None:
                fit_to_tokenizer(scenario, job.measured)
            headers = headers_of(settings)
            if job.dialect not in DIALECTS:
                raise ValueError(f"dialect {job.dialect!r} is none of {', '.join(DIALECTS)}")
            trusted = ssl_of(settings)
            _check_files(job)
        except (ScenarioError, ValueError, OSError) as error:
            self.emit(JobRefused(str(error)))
            return
        await self._forget_run()
        self._can_reset = True
        # A Unix socket has no packets, and the kernel stamps none of its reads.
        clock = settings.clock if address_of(settings.host).socket is None else "user"
        try:
            reader, why = open_reader(asyncio.get_running_loop(), self._timeline, clock, _connections(job))
        except ValueError as error:
            self.emit(JobRefused(str(error)))
            return
        session = open_session(
            reader,
            connect_timeout_s=settings.connect_timeout_s,
            ssl=trusted,
            trust_env=settings.trust_env,
            unix_socket=address_of(settings.host).socket,
        )
        run = EngineRun(job, session, self._timeline, self.emit)
        health = Health(run)
        driver = LoadDriver(run, scenario, self._spawn)
        self._played = _PlayedRun(driver, health, ShownAnswer(run), session, reader)
        self._spawn(watch(run))
        self._spawn(run.keep_reporting())
        self._spawn(driver.keep_ready())
        self._spawn(health.lag.run())
        self._spawn(health.run())
        if job.worker == 0:
            self._spawn(watch_server(settings, headers, self._timeline, self.emit))
            if settings.gpu_metrics:
                self._spawn(watch_gpus(settings.gpu_metrics, self._timeline, self.emit))
        take_over()
        if why is not None:
            self.emit(NotOnTheWire(why))
        await self._reset_cache(job)
        self.emit(RunReady())

    async def _close_level(self, driver: LoadDriver, level: int, drain_s: float) -> None:
        self.emit(LevelClosed(level, open=await driver.drained(drain_s)))

    async def _cut_level(self, driver: LoadDriver, level: int) -> None:
        await driver.cut()
        gc.collect()  # nobody is measured now
        await self._reset_cache(driver.run.job)
        self.emit(LevelCut(level, next=driver.next_conversation))

    async def _reset_cache(self, job: Job) -> None:
        """Have the server forget what it was asked, where it can and nobody wants it warm."""
        if job.worker == 0 and job.usage_in_events and job.settings.cache != "warm" and self._can_reset:
            self._can_reset = await reset_prefix_cache(job.settings)

    async def _stop_turns(self, driver: LoadDriver, drain_s: float) -> None:
        await driver.stop_turns(drain_s)
        self.emit(TurnsStopped())

    async def _finish_run(self, run: _PlayedRun) -> None:
        """The run is over: cut what is left, report the last counts, forget the run."""
        await run.driver.cut()
        self.emit(HealthSampled(run.health.line()))
        await self._forget_run()
        self.emit(RunFinished())

    async def _forget_run(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        run, self._played = self._played, None
        if run is not None:
            await run.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Never run on half alive: the run becomes INVALID and shows this traceback's end.
            traceback.print_exception(error)
            os._exit(1)


def _connections(job: Job) -> int:
    """Local ports that this worker may need at once: closed ones linger for a minute."""
    people = job.load.most_people
    return _OPEN_LOOP_PORTS if people is None else max(4 * -(-people // job.workers), _LEAST_PORTS)


def _check_files(job: Job) -> None:
    """Raise the descriptor limit as far as allowed; ValueError if the people of this worker need more."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    people = job.load.most_people
    if people is None:
        return  # how many will be there at once is the server's doing
    needed = -(-people // job.workers) + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ValueError(
            f"{people} people need {needed} open files in a worker, the limit is {hard}; "
            "raise it (ulimit -n) or use more workers"
        )


async def _main(fd: int) -> None:
    await EngineProcess(socket.socket(fileno=fd)).run()
    os._exit(0)  # at once: asyncio would wait for a look-up of a host name that hangs in a thread


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_main(int(sys.argv[1])))
