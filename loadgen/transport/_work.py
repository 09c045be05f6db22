"""Which piece of heavy work is done next, and that the loop looks at its sockets between two."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from itertools import count
from typing import Any

_TOGETHER_S = 0.0002
"""So long, in seconds, small pieces of work are done in one round of the loop."""
_MOST_EVENTS, _COUNTED_S, _PAUSE_S = 200, 0.1, 2.0
"""So many events in this time are too many to be read one by one, and none is for a while then."""


class WorkStage(IntEnum):
    """How near its person's next request a piece of work is; the nearest goes first."""

    RECORD = 0
    """Nobody waits for it."""
    END = 1
    """Giving the end of a body to aiohttp, and reading it if it is of the plain form."""
    DECODE = 2
    """Reading any other."""
    REQUEST = 3
    """Making the next request."""


class WorkScheduler:
    """Lets one piece of heavy work run per round of the event loop, which looks at its sockets between two.
    Of `later`'s small pieces a few share a round.

    `async with scheduler.turn_for(stage):` around the work. Streams that began together end together: a
    hundred replies decoded in one round would keep a hundred first tokens of the next turns unread for a
    tenth of a second, and reads that wait coalesce. Work of the latest stage goes first: then the first of a
    hundred people asks again after the work of one reply, and not after that of all. What a task does right
    after its turn, before the loop goes on, is a part of it: a reply's end and the request that follows it.
    """

    def __init__(self) -> None:
        self._busy = False
        self._waiting: list[tuple[int, int, asyncio.Future[None] | Callable[[], object]]] = []
        self._number = count()
        self._moment_until_s = 0.0
        self._ended: tuple[asyncio.Task[Any] | None, WorkStage, asyncio.Handle] | None = None
        """Whose turn ended in this round of the loop, after which stage, and what lets the next one in."""
        self._events, self._counted_from_s = 0, 0.0
        """How many events came, and since when they are counted; later than now: a pause."""

    @property
    def has_moment(self) -> bool:
        """Whether who has a turn may do one more small piece of work: a round of the loop costs as much."""
        return asyncio.get_running_loop().time() < self._moment_until_s

    def turn_for(self, stage: WorkStage) -> WorkTurn:
        """Wait until this work may run; the next one is let in a round of the loop after its end."""
        return WorkTurn(self, stage)

    async def begin(self, stage: WorkStage) -> None:
        if self._goes_on(stage):
            return
        if self._busy:
            admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (-stage, next(self._number), admitted))
            try:
                await admitted
            except asyncio.CancelledError:
                if admitted.done() and not admitted.cancelled():
                    self._free()
                raise
        self._begin()

    def _begin(self) -> None:
        self._busy, self._moment_until_s = True, asyncio.get_running_loop().time() + _TOGETHER_S

    def later(self, work: Callable[[], object]) -> None:
        """Have this done once there is nothing more urgent."""
        heapq.heappush(self._waiting, (-WorkStage.RECORD, next(self._number), work))
        if not self._busy:
            self._free()

    def _do(self, work: Callable[[], object]) -> None:
        """This, and for a moment more of its kind."""
        self._begin()
        try:
            work()
            while self._waiting and callable(more := self._waiting[0][2]) and self.has_moment:
                heapq.heappop(self._waiting)
                more()
        finally:
            self.end(WorkStage.RECORD)

    def has_time_for(self, events: int) -> bool:
        """Count these events; whether so few come that each may be read by itself."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._counted_from_s + _COUNTED_S:
            self._counted_from_s, self._events = now_s, 0
        before, self._events = self._events, self._events + events
        if before < _MOST_EVENTS <= self._events:  # many people are at work, for a while to come
            self._counted_from_s = now_s + _PAUSE_S
        return self._events < _MOST_EVENTS

    def end(self, stage: WorkStage) -> None:
        """Let the next one in: its task, or who comes next, goes on in a later round of the loop."""
        if stage in (WorkStage.END, WorkStage.DECODE):
            self._ended = asyncio.current_task(), stage, asyncio.get_running_loop().call_soon(self._free)
        elif not self._admit():
            asyncio.get_running_loop().call_soon(self._free)

    def _goes_on(self, stage: WorkStage) -> bool:
        """Whether this is a later stage of what this task did just now: it keeps its turn."""
        if self._ended is None or self._ended[0] is not asyncio.current_task() or stage <= self._ended[1]:
            return False
        self._ended[2].cancel()
        self._ended = None
        return True

    def _free(self) -> None:
        self._ended = None
        self._busy = self._admit()

    def _admit(self) -> bool:
        """Let one in that waits; whether there was one."""
        while self._waiting:
            admitted = heapq.heappop(self._waiting)[2]
            if callable(admitted):
                asyncio.get_running_loop().call_soon(self._do, admitted)
                return True
            if not admitted.done():
                admitted.set_result(None)
                return True
        return False


@dataclass(slots=True)
class WorkTurn:
    """The turn of one piece of work, as a context."""

    scheduler: WorkScheduler
    stage: WorkStage

    async def __aenter__(self) -> None:
        await self.scheduler.begin(self.stage)

    async def __aexit__(self, *_: object) -> None:
        self.scheduler.end(self.stage)
