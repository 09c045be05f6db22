"""Open loop on one worker: every conversation begins when it is due, whatever became of those before it.

Whatever can be done before that moment is done before it: the request is made and a connection held ready, so
that what is left at the moment itself is to send it. Early work is never counted: a turn is planned when due.
"""

from __future__ import annotations

from aiohttp.connector import Connection

from loadgen.engine._conversation import converse
from loadgen.engine._history import History
from loadgen.engine._person import SimulatedPerson
from loadgen.engine._run import EngineRun
from loadgen.engine._timer import ExactTimer
from loadgen.engine._turn import drop

EARLY_NS = 50_000_000
"""How long before its time a conversation is made ready."""


class OpenLoop:
    """Receives conversations one by one; one a run."""

    def __init__(self, run: EngineRun) -> None:
        self._run = run
        self._timer = ExactTimer(run.timeline)
        self._closed_ns: int | None = None

    def open(self) -> None:
        self._closed_ns = None

    def close(self) -> None:
        """What becomes due from now on does not begin, and is not counted."""
        if self._closed_ns is None:
            self._closed_ns = self._run.timeline.now_ns()

    def end(self) -> None:
        """The run is over: let the timer go."""
        self._timer.close()

    async def until_early(self, due_ns: int) -> None:
        """Until it is time to make ready what is due then."""
        await self._timer.until(due_ns - EARLY_NS)

    def came_due(self, due_ns: int) -> bool:
        """Whether it is past, and was so before the level's end."""
        now_ns = self._run.timeline.now_ns()
        return due_ns <= (now_ns if self._closed_ns is None else self._closed_ns)

    async def receive(self, person: SimulatedPerson, history: History, due_ns: int) -> None:
        """Make a conversation ready, begin it on time and play it to its end."""
        body = history.body()
        spare = await self._spare_until(due_ns)
        if spare is not None:
            spare.release()  # into the pool, from which the request takes it at once
        if not self.came_due(due_ns):
            return
        if self._closed_ns is not None or person.leaving.is_set():
            drop(self._run, history.conversation, 0, due_ns)
            return
        await converse(self._run, person, history, due_ns, body)

    async def _spare_until(self, due_ns: int) -> Connection | None:
        """Wait until due, with an open connection to show for it if there was one to be had by then."""
        opening = self._run.open_spare()
        await self._timer.until(due_ns)
        if opening is None:
            return None
        if not opening.done():
            opening.cancel()  # the request opens its own, and its records tell how that went
            return None
        return None if opening.cancelled() or opening.exception() is not None else opening.result()
