"""The processes of a sweep: servers and runs that end when the sweep ends, however it does.

Each has a session of its own, since Ctrl-C in a terminal reaches the whole group of the sweep: a server that
got it too would be gone before its run had drained. The sweep itself stops them, runs before servers.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from turnbench.places import STATE

_STOP_S = 30.0
"""Longer than `serve` gives its server."""
_PR_SET_PDEATHSIG = 1

Process = asyncio.subprocess.Process


class SweepBusy(Exception):
    """Somebody plays this sweep already."""


class SweepLock:
    """Held by a sweep and by all its processes: free only when the last of them has ended.

    A sweep that was killed leaves runs that end within a second and servers that take their time to free a
    GPU; whoever resumes it must not meet them.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], wait_s: float = 60.0) -> None:
        """Take it; raises SweepBusy if others still hold it after `wait_s`."""
        self.file = os.open(folder / "sweep.lock", os.O_RDWR | os.O_CREAT, 0o644)
        ends_at, reported = time.monotonic() + wait_s, False
        while not self._taken():
            if time.monotonic() > ends_at:
                raise SweepBusy
            if not reported:
                say("waiting for what is left of this sweep's last time to end")
            reported = True
            time.sleep(0.1)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


async def start_server(options: list[str], log: IO[bytes], lock: SweepLock, state: Path) -> Process:
    """`python -m serve`; TERM if the sweep is killed, so that it stops its server in order.

    Its state folder is the sweep's: `serve stop` is not about the servers of a sweep.
    """
    return await _start(["-m", "serve", *options], signal.SIGTERM, lock, asyncio.subprocess.PIPE, log, state)


async def start_run(options: list[str], log: IO[bytes], lock: SweepLock, state: Path | None) -> Process:
    """`turnbench run`; KILL if the sweep is killed: it must not write into a sweep that somebody resumes.

    `state`: where its server is described, if that is one of the sweep's.
    """
    return await _start(["-m", "turnbench", "run", *options], signal.SIGKILL, lock, log, log, state)


async def _start(
    command: list[str],
    last_signal: signal.Signals,
    lock: SweepLock,
    out: int | IO[bytes],
    err: IO[bytes],
    state: Path | None,
) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # not the folder in which the sweep was started: it may have a `serve/` of its own
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        env=os.environ | ({} if state is None else {STATE: str(state.resolve())}),
        start_new_session=True,
        pass_fds=[lock.file],
        preexec_fn=_end_with_parent(last_signal),
    )


def _end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Have the kernel send this signal to the child when the sweep is gone; on Linux only."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it was killed just now
            os._exit(1)

    return ask_kernel


async def ready_url(server: Process) -> str | None:
    """The URL of the line `ready: URL`, or None if the server ended first."""
    assert server.stdout is not None
    async for line in server.stdout:
        if line.startswith(b"ready: "):
            return line.removeprefix(b"ready: ").decode().strip()
    return None


async def stop_server(server: Process) -> None:
    """In order, and by force if it does not end."""
    if server.returncode is None:
        server.terminate()
        try:
            await asyncio.wait_for(server.communicate(), _STOP_S)
        except TimeoutError:
            server.kill()
            await server.communicate()


def signal_process(process: Process, number: int) -> None:
    if process.returncode is None:
        process.send_signal(number)
