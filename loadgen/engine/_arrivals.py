"""Open loop: when conversations arrive, and the timer that wakes at those times.

Arrivals are a pure function of seed, rate and burstiness. Every worker draws the same ones and plays its own,
so the rate splits exactly whatever their number.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import heapq
import math
import os
import sys
from collections.abc import Iterator
from itertools import accumulate, count, pairwise
from statistics import NormalDist

from loadgen._messages import ArrivalSchedule, Job
from loadgen.options._shape import EXACT_ARRIVALS, ChangingRate
from scenarios import Scenario, arrivals
from turnbench.clock import Timeline
from turnbench.draws import stream

_NORMAL = NormalDist()
_BLOCK_S = 60.0
_MOST_IN_BLOCK = 20_000
_CLOCK_MONOTONIC = 1
_NONBLOCKING_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


def arrivals_of(job: Job, schedule: ArrivalSchedule) -> Iterator[tuple[int, int]]:
    """(number, due_ns) of each conversation that this worker has to begin; endless."""
    settings = job.settings
    first, rate_per_s, spans_s = schedule.first, schedule.rate_per_s, tuple(schedule.spans_s)
    if schedule.ramp_to_per_s is None:
        offsets = arrival_offsets_s(settings.seed, first, rate_per_s, settings.burstiness, spans_s)
    else:
        ramp = ChangingRate(rate_per_s, schedule.ramp_to_per_s, sum(spans_s))
        offsets = ramped_offsets_s(settings.seed, first, ramp, settings.burstiness, spans_s)
    for number, offset_s in enumerate(offsets, start=first):
        if number % job.workers == job.worker:
            yield number, schedule.start_ns + round(offset_s * 1e9)


def trace_arrivals(job: Job, scenario: Scenario, start_ns: int, speed: float) -> Iterator[tuple[int, int]]:
    """As `arrivals_of`, at a trace's own times or a multiple of them; ends with the trace."""
    for number, at_s in enumerate(arrivals(scenario)):
        if number % job.workers == job.worker:
            yield number, start_ns + round(at_s / speed * 1e9)


def ramped_offsets_s(
    seed: int, first: int, ramp: ChangingRate, burstiness: float, spans_s: tuple[float, ...]
) -> Iterator[float]:
    """As `arrival_offsets_s`, at a rate that changes: arrivals of rate 1 on a clock that runs at the ramp's.

    (The time-change theorem; Brown et al. 2002.) Each span gets the arrivals that the ramp expects in it.
    """
    ends = [ramp.expected(passed_s) for passed_s in accumulate(spans_s)]
    counts = tuple(end - start for start, end in pairwise([0.0, *ends]))
    for offset in arrival_offsets_s(seed, first, 1.0, burstiness, counts):
        yield ramp.moment_s(offset)


def arrival_offsets_s(
    seed: int, first: int, rate_per_s: float, burstiness: float, spans_s: tuple[float, ...] = ()
) -> Iterator[float]:
    """Seconds after the start at which conversations first, first + 1, ... arrive; endless.

    Gaps are gamma of shape `burstiness` and mean 1/rate. Within each block they are stretched so that the
    block holds exactly the arrivals that rate x length asks for: for Poisson arrivals that is the process
    given its number of points (Cox and Lewis 1966), and a window is offered the rate that was asked for. The
    first blocks are as long as `spans_s` say (a warm-up, a window), then 60 s each. The next block is drawn
    piece by piece while this one is played, so that no arrival waits for a large draw.
    """
    start_s, number = 0.0, first
    blocks = _blocks(rate_per_s, spans_s)
    size, length_s = next(blocks)
    gaps = [gap(seed, number + i, burstiness) for i in range(size)]
    for size, next_length_s in blocks:
        number += len(gaps)
        a_step = -(-size // len(gaps))
        stretch = length_s / math.fsum(gaps)
        coming: list[float] = []
        passed = 0.0
        for one in gaps:
            passed += one
            yield start_s + passed * stretch
            upto = min(len(coming) + a_step, size)
            coming.extend(gap(seed, number + i, burstiness) for i in range(len(coming), upto))
        start_s += length_s
        gaps, length_s = coming, next_length_s


def _blocks(rate_per_s: float, spans_s: tuple[float, ...]) -> Iterator[tuple[int, float]]:
    """(arrivals, length in seconds) of each block: enough arrivals for chance to work in it, and not so many
    that drawing them takes long.

    Spans with few arrivals are joined, because in a block of one they would come like clockwork. A span with
    enough of them is not, so that a window holds what its rate asks for whatever the warm-up before it is.
    """
    few, few_s = 0, 0.0
    for span_s in spans_s:
        size = round(rate_per_s * span_s)
        if size < EXACT_ARRIVALS:
            few, few_s = few + size, few_s + span_s
            continue
        if few:
            yield few, few_s
        elif few_s:  # nobody comes in so short a warm-up: the window's block has to begin with it
            size, span_s = round(rate_per_s * (span_s + few_s)), span_s + few_s
        parts = -(-size // _MOST_IN_BLOCK)
        yield from ((n, span_s * n / size) for n in ((size + part) // parts for part in range(parts)))
        few, few_s = 0, 0.0
    while True:
        size = min(max(round(rate_per_s * _BLOCK_S), few, EXACT_ARRIVALS), _MOST_IN_BLOCK)
        yield size, size / rate_per_s
        few = 0


def gap(seed: int, k: int, shape: float) -> float:
    """Gamma draw k of this shape and mean 1 (Marsaglia and Tsang 2000), decided by (seed, k) alone."""
    draws = stream(seed, "gap", k)
    boost = 1.0
    if shape < 1:  # their section 6: gamma(a) = gamma(a + 1) U^(1/a)
        boost = next(draws) ** (1 / shape)
    d = (shape if shape >= 1 else shape + 1) - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = _NORMAL.inv_cdf(next(draws))
        v = (1 + c * x) ** 3
        if v > 0 and math.log(next(draws)) < 0.5 * x * x + d - d * v + d * math.log(v):
            return max(boost * d * v / shape, 1e-12)  # never zero: a block's sum divides


class _Itimerspec(ctypes.Structure):
    """Linux's struct itimerspec: an interval (zero: fire once), then the time to the first."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class ExactTimer:
    """Wakes its waiters at times of a time line, exact to a tenth of a millisecond; one a run.

    asyncio rounds its timers up to whole milliseconds (epoll_wait takes no less), which would bend short gaps
    between arrivals. On Linux a timerfd has no such grain, and the event loop watches it like any socket.
    Elsewhere this is asyncio's own timer.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = count()
        self._fd = _timerfd() if sys.platform == "linux" else None
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._fired)

    async def until(self, due_ns: int) -> None:
        """Sleep until then; at once if it is past."""
        now_ns = self._timeline.now_ns()
        if due_ns <= now_ns:
            return
        if self._fd is None:
            await asyncio.sleep((due_ns - now_ns) / 1e9)
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, (due_ns, next(self._number), waiter))
        if self._waiting[0][2] is waiter:
            self._set(due_ns)
        await waiter

    def close(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _fired(self) -> None:
        assert self._fd is not None
        with contextlib.suppress(BlockingIOError):  # the timer was set anew before we came to read it
            os.read(self._fd, 8)
        now_ns = self._timeline.now_ns()
        while self._waiting and self._waiting[0][0] <= now_ns:
            waiter = heapq.heappop(self._waiting)[2]
            if not waiter.done():  # it may have been cancelled
                waiter.set_result(None)
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
