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
from typing import Any

import msgspec

from loadgen._frames import Unpacker, pack
from loadgen._headers import headers_of
from loadgen._settings import Job
from loadgen.engine._driver import LoadDriver
from loadgen.engine._health import Health
from loadgen.engine._run import EngineRun
from loadgen.engine._server_metrics import watch_server
from loadgen.engine._watch import watch
from loadgen.transport._http import open_session
from loadgen.transport._reader import StampedReader
from scenarios import ScenarioError, parse
from turnbench.clock import Timeline

_SPARE_FILES = 64
_COLLECTIONS = (20_000, 10, 1_000_000)
"""When garbage is collected. A full collection walks over all that people hold: 5,000 of them stopped the
loop for 0.4 s, so it waits for the end of a level. The quick ones find nearly all there is, and by default
there would be one within every reply."""


class EngineProcess:
    """Obeys Locust's messages; one LoadDriver a run."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._timeline = Timeline()
        self._driver: LoadDriver | None = None
        self._health: Health | None = None
        self._session: Any = None
        self._reader: StampedReader | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writer: asyncio.StreamWriter | None = None

    def emit(self, message: dict[str, Any]) -> None:
        assert self._writer is not None
        self._writer.write(pack(message))

    async def run(self) -> None:
        """Until the other end is closed."""
        reader, self._writer = await asyncio.open_connection(sock=self._link)
        self.emit({"op": "hello", "pid": os.getpid()})
        unpacker = Unpacker()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                for message in unpacker.feed(data):
                    await self._obey(message)

    async def _obey(self, message: dict[str, Any]) -> None:
        match message:
            case {"op": "job", "job": job}:
                await self._take_job(msgspec.convert(job, Job))
            case {"op": "play", "user": user} if self._driver is not None:
                self._driver.play(user)
            case {"op": "leave", "user": user} if self._driver is not None:
                self._driver.leave(user)
            case {"op": "level", "level": level, "arrivals": arrivals} if self._driver is not None:
                self._driver.begin_level(level, arrivals)
            case {"op": "measure", "start_ns": start, "end_ns": end} if self._driver is not None:
                self._driver.measure(start, end)
            case {"op": "close", "level": level, "drain_s": drain_s} if self._driver is not None:
                self._spawn(self._close(self._driver, level, drain_s))
            case {"op": "cut", "level": level} if self._driver is not None:
                self._spawn(self._cut(self._driver, level))
            case {"op": "quiet", "drain_s": drain_s} if self._driver is not None:
                self._spawn(self._quiet(self._driver, drain_s))
            case {"op": "finish"} if self._driver is not None:
                self._spawn(self._finish(self._driver))
            case {"op": "ping", "n": n}:
                self.emit({"op": "pong", "n": n, "here_ns": self._timeline.now_ns()})

    async def _take_job(self, job: Job) -> None:
        """Get ready for a run; answers `ready`, or `refused` with what is wrong."""
        try:
            scenario = parse(job.scenario)
            headers = headers_of(job.settings)
            _check_files(job)
        except (ScenarioError, ValueError, OSError) as error:
            self.emit({"op": "refused", "why": str(error)})
            return
        await self._drop_run()
        loop = asyncio.get_running_loop()
        settings = job.settings
        self._reader = StampedReader(loop, self._timeline, settings.clock == "kernel")
        self._session = open_session(
            self._reader,
            connect_timeout_s=settings.connect_timeout_s,
            ssl=not settings.insecure,
            trust_env=settings.trust_env,
        )
        run = EngineRun(job, self._session, self._timeline, self.emit)
        self._driver = LoadDriver(run, scenario, self._spawn)
        self._health = Health(run)
        self._spawn(watch(run))
        self._spawn(self._health.lag.run())
        self._spawn(self._health.run())
        if job.worker == 0:
            self._spawn(watch_server(settings, headers, self._timeline, self.emit))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECTIONS)
        self.emit({"op": "ready"})

    async def _close(self, driver: LoadDriver, level: int, drain_s: float) -> None:
        self.emit({"op": "closed", "level": level, "open": await driver.drained(drain_s)})

    async def _cut(self, driver: LoadDriver, level: int) -> None:
        await driver.cut()
        gc.collect()  # nobody is measured now
        self.emit({"op": "was_cut", "level": level, "next": driver.next_conversation})

    async def _quiet(self, driver: LoadDriver, drain_s: float) -> None:
        await driver.quiet(drain_s)
        self.emit({"op": "is_quiet"})

    async def _finish(self, driver: LoadDriver) -> None:
        """The run is over: cut what is left, tell the last counts, forget the run."""
        await driver.cut()
        assert self._health is not None
        self.emit({"op": "health", "line": self._health.line()})
        await self._drop_run()
        self.emit({"op": "finished"})

    async def _drop_run(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        if self._driver is not None:
            self._driver.end()
            self._driver = None
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

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


def _check_files(job: Job) -> None:
    """Raise the descriptor limit as far as allowed; ValueError if the people of this worker need more."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = job.settings
    people = settings.people
    if settings.arrival_rate_per_s is not None:
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
    asyncio.run(_main(int(sys.argv[1])))
