"""Wakes a task at a time exact to a tenth of a millisecond.

asyncio rounds its timers up to whole milliseconds (epoll_wait takes no less), which would bend short gaps
between arrivals. On Linux a timerfd has no such grain, and the event loop watches it like any socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import heapq
import os
import sys
from itertools import count

from turnbench.clock import Timeline

_CLOCK_MONOTONIC = 1
_NONBLOCKING_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


class _Itimerspec(ctypes.Structure):
    """Linux's struct itimerspec: an interval (zero: ring once), then the time to the first ring."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class ExactTimer:
    """Rings at times of a time line; one an engine. Elsewhere than on Linux it is asyncio's own timer."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = count()
        self._fd = _timerfd() if sys.platform == "linux" else None
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._rang)

    async def until(self, due_ns: int) -> None:
        """Sleep until then; at once if it is past."""
        now_ns = self._timeline.now_ns()
        if due_ns <= now_ns:
            return
        if self._fd is None:
            await asyncio.sleep((due_ns - now_ns) / 1e9)
            return
        ring: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, (due_ns, next(self._number), ring))
        if self._waiting[0][2] is ring:
            self._set(due_ns)
        await ring

    def close(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _rang(self) -> None:
        assert self._fd is not None
        with contextlib.suppress(BlockingIOError):  # the timer was set anew before we came to read it
            os.read(self._fd, 8)
        now_ns = self._timeline.now_ns()
        while self._waiting and self._waiting[0][0] <= now_ns:
            ring = heapq.heappop(self._waiting)[2]
            if not ring.done():  # who waited may have been cancelled
                ring.set_result(None)
        if self._waiting:
            self._set(self._waiting[0][0])

    def _set(self, due_ns: int) -> None:
        seconds, rest_ns = divmod(max(due_ns - self._timeline.now_ns(), 1), 1_000_000_000)
        spec = _Itimerspec(0, 0, seconds, rest_ns)
        if _libc().timerfd_settime(self._fd, 0, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _timerfd() -> int:
    fd = int(_libc().timerfd_create(_CLOCK_MONOTONIC, _NONBLOCKING_CLOEXEC))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    return fd
