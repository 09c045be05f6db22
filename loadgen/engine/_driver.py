"""The load of a run: who is in which conversation, level by level, in closed and in open loop.

In closed loop each Locust user is a person in one conversation after the other. In open loop one Locust user
of each worker stands for the arrivals, and every conversation that arrives has a person of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from aiohttp.connector import Connection

from loadgen._messages import ArrivalSchedule, NothingToPlay, UserDone
from loadgen.engine._arrivals import ExactTimer, arrivals_of, trace_arrivals
from loadgen.engine._conversation import converse, drop_turn
from loadgen.engine._history import History
from loadgen.engine._person import SimulatedPerson, first_of
from loadgen.engine._run import EngineRun, Window
from loadgen.transport._work import WorkStage
from scenarios import Scenario, plan
from turnbench.outcomes import Outcome

_READY_AHEAD, _READY_BYTES = 64, 4 << 20
"""First requests of conversations to come that are kept made; in closed loop none once they have so much."""
EARLY_NS = 50_000_000
"""How long before its time a conversation is made ready."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Conversations:
    """This worker's conversations: worker w of W begins number w, then w + W, w + 2W, ..."""

    def __init__(self, run: EngineRun, scenario: Scenario) -> None:
        self._run = run
        self._scenario = scenario
        self.next = run.job.worker
        """The lowest number from which on this worker has begun no conversation."""
        self._undrawn = self.next
        self._drawn: deque[tuple[History, int]] = deque()
        """The next ones with their first requests made, and how many bytes these have."""
        self._drawn_bytes = 0
        self._is_taken = asyncio.Event()

    def take(self) -> History | None:
        """The next conversation, the first that fits into the model's context; None: no more."""
        self._is_taken.set()
        history, size_bytes = self._drawn.popleft() if self._drawn else (self._draw(), 0)
        self._drawn_bytes -= size_bytes
        self.next = self._undrawn if history is None else history.plan.index + self._run.job.workers
        return history

    def redraw(self) -> None:
        """What was made ready is of a level that is over."""
        self._drawn.clear()
        self._drawn_bytes, self._undrawn = 0, self.next

    async def keep_drawn(self, people: Callable[[], int]) -> None:
        """While nobody waits for anything else, make ready what so many people take next; until cancelled."""
        while True:
            await self._is_taken.wait()
            self._is_taken.clear()
            goes_on = True
            while goes_on and self._has_room(people()):
                async with self._run.scheduler.turn_for(WorkStage.RECORD):
                    goes_on = self._keep_one()
                    while goes_on and self._run.scheduler.has_moment and self._has_room(people()):
                        goes_on = self._keep_one()

    def _has_room(self, people: int) -> bool:
        return len(self._drawn) < min(people, _READY_AHEAD) and self._drawn_bytes < _READY_BYTES

    def _keep_one(self) -> bool:
        """Make the next one ready; whether there was one."""
        if (history := self._draw()) is None:
            return False
        size_bytes = history.prepare()
        self._drawn.append((history, size_bytes))
        self._drawn_bytes += size_bytes
        return True

    def _draw(self) -> History | None:
        size = self._scenario.size or 1
        for _ in range(size):  # each may be too long, whatever the other workers have
            number = self._undrawn
            if self._run.job.load.once and number >= size:
                return None
            self._undrawn += self._run.job.workers
            if (history := self.history(number)) is not None:
                return history
        return None

    def history(self, number: int) -> History | None:
        """A conversation that is about to begin; None if it needs more context than there is."""
        job = self._run.job
        conversation = plan(self._scenario, job.settings.seed, number)
        needed = conversation.needs_context
        if needed is not None and job.context is not None and needed > job.context:
            return None
        history = History(conversation, job, self._run.dialect, self._run.level, self._run.form)
        history.system_role = self._run.system_role
        return history

    def arrivals(self, schedule: ArrivalSchedule) -> Iterator[tuple[int, int]]:
        """(number, due_ns) of each conversation that this worker has to begin in open loop."""
        job = self._run.job
        if schedule.replay_speed is not None:
            return trace_arrivals(job, self._scenario, schedule.start_ns, schedule.replay_speed)
        return arrivals_of(job, schedule)


class LoadDriver:
    """Plays conversations for Locust's users; every finished turn is reported through the run."""

    def __init__(self, run: EngineRun, scenario: Scenario, spawn: Spawn) -> None:
        self.run = run
        self._spawn = spawn
        self._conversations = Conversations(run, scenario)
        self._may_begin = asyncio.Event()
        self._people: dict[int, tuple[SimulatedPerson, asyncio.Task[None]]] = {}
        self._open_loop = OpenLoop(run, self._conversations, spawn)

    @property
    def next_conversation(self) -> int:
        """The lowest number from which on this worker has begun no conversation."""
        return self._conversations.next

    def begin_level(self, level: int, arrivals: ArrivalSchedule | None = None) -> None:
        """Let people begin; in open loop `arrivals` says from when and at which rate they come."""
        self.run.level, self.run.window = level, Window()
        self._conversations.redraw()
        self._open_loop.begin(None if arrivals is None else self._conversations.arrivals(arrivals))
        self._may_begin.set()

    def measure(self, start_ns: int, end_ns: int | None) -> None:
        """The window of the level, as soon as it is known: what `unfinished` means depends on it."""
        self.run.window = Window(start_ns, end_ns)

    def play(self, user: int, most: int | None = None) -> None:
        """Play one conversation after the other for this user, or so many, until it leaves or the level ends.

        UserDone is emitted then, NothingToPlay where the scenario has no more.
        """
        person = SimulatedPerson()
        self._people[user] = (person, self._spawn(self._play(user, person, most)))

    async def keep_ready(self) -> None:
        """Closed loop: make ready what people play next, while nobody waits for anything; until cancelled."""
        await self._conversations.keep_drawn(lambda: len(self._people))

    def leave(self, user: int) -> None:
        """This user begins no further turn; the one under way goes on to its end."""
        if user in self._people:
            self._people[user][0].leaving.set()

    async def drained(self, drain_s: float) -> int:
        """Wait until no measured turn is open; the number still open when `drain_s` is over."""
        until_ns = self.run.timeline.now_ns() + int(drain_s * 1e9)
        while count := sum(self.run.is_measured(turn) for turn in self.run.open):
            if self.run.timeline.now_ns() >= until_ns:
                return count
            await asyncio.sleep(0.05)
        return 0

    async def stop_turns(self, drain_s: float) -> None:
        """Begin no further turn, and wait at most `drain_s` for those under way."""
        self._send_all_home()
        until_ns = self.run.timeline.now_ns() + int(drain_s * 1e9)
        while self.run.open and self.run.timeline.now_ns() < until_ns:
            await asyncio.sleep(0.05)

    async def cut(self) -> None:
        """End every conversation now: open turns become `unfinished` (measured) or `cut`."""
        self._send_all_home()
        for turn in self.run.open:
            outcome: Outcome = "unfinished" if self.run.is_measured(turn) else "cut"
            if turn.exchange is not None:
                turn.exchange.cut(outcome, "the level ended while this turn ran")
        if tasks := [task for _, task in self._everybody()]:
            await asyncio.wait(tasks)
        self.run.report_all()

    def end(self) -> None:
        """The run is over."""
        self._open_loop.end()
        self.run.close()

    def _everybody(self) -> list[tuple[SimulatedPerson, asyncio.Task[None]]]:
        return [*self._people.values(), *self._open_loop.people.values()]

    def _send_all_home(self) -> None:
        """Nobody begins a further turn."""
        self._may_begin.clear()
        self._open_loop.close()
        for person, _ in self._everybody():
            person.leaving.set()

    async def _play(self, user: int, person: SimulatedPerson, most: int | None) -> None:
        await first_of(self._may_begin.wait(), person.leaving.wait())
        more, played, due_ns = True, 0, None
        if self.run.job.load.open_loop:
            await self._open_loop.receive(person)
        else:
            while played != most and not person.leaving.is_set():
                if (history := self._conversations.take()) is None:
                    more = False
                    break
                due_ns = await self._converse(person, history, due_ns)
                played += 1
        del self._people[user]
        self.run.emit(UserDone(user) if more else NothingToPlay(user))

    async def _converse(self, person: SimulatedPerson, history: History, due_ns: int | None) -> int | None:
        """Closed loop: play a conversation, due at this moment or else now; when it ended.

        The person's next one is due then. None if a turn of it failed.
        """
        begun_ns = self.run.timeline.now_ns()
        ended_ns = await converse(self.run, person, history, begun_ns if due_ns is None else due_ns)
        if ended_ns is None:
            rested_ns = begun_ns + int(self.run.failure_pause_s * 1e9)
            await person.pause_until(rested_ns, self.run.timeline)
        return ended_ns


class OpenLoop:
    """Begins every conversation when it is due, whatever became of those before it; one a run.

    Whatever can be done before that moment is done before it: the request is made and a connection held
    ready, so that what is left at the moment itself is to send it. Early work is never counted: a turn is
    planned when due.
    """

    def __init__(self, run: EngineRun, conversations: Conversations, spawn: Spawn) -> None:
        self._run = run
        self._conversations = conversations
        self._spawn = spawn
        self._timer = ExactTimer(run.timeline)
        self._arrivals: Iterator[tuple[int, int]] | None = None
        self._closed_ns: int | None = None
        self.people: dict[int, tuple[SimulatedPerson, asyncio.Task[None]]] = {}
        """Who is in which conversation, by its number."""

    def begin(self, arrivals: Iterator[tuple[int, int]] | None) -> None:
        """A level begins, in open loop with these arrivals."""
        if arrivals is not None:
            self._arrivals = arrivals
        self._closed_ns = None

    def close(self) -> None:
        """What becomes due from now on does not begin, and is not counted."""
        if self._closed_ns is None:
            self._closed_ns = self._run.timeline.now_ns()

    def end(self) -> None:
        """The run is over: let the timer go."""
        self._timer.close()

    async def receive(self, host: SimulatedPerson) -> None:
        """Begin each conversation of the level when it arrives, until this person leaves.

        Each is awaited by its time, never by a sum of sleeps: one that comes late makes no other late.
        """
        arrivals, self._arrivals = self._arrivals, None
        if arrivals is None:  # a second person here: the arrivals are another's
            await host.leaving.wait()
            return
        ready: asyncio.Queue[tuple[int, History] | None] = asyncio.Queue(_READY_AHEAD)
        preparing = self._spawn(self._prepare(arrivals, ready))
        try:
            while (arrival := await ready.get()) is not None:
                due_ns, history = arrival
                await first_of(self._timer.until(due_ns - EARLY_NS), host.leaving.wait())
                if host.leaving.is_set() and not self._came_due(due_ns):
                    return
                number, person = history.conversation.index, SimulatedPerson()
                self._conversations.next = number + self._run.job.workers
                self.people[number] = (person, self._spawn(self._play(person, history, due_ns)))
        finally:
            preparing.cancel()
            await asyncio.wait([preparing])

    async def _prepare(
        self, arrivals: Iterator[tuple[int, int]], ready: asyncio.Queue[tuple[int, History] | None]
    ) -> None:
        """Keep the next requests made: many long ones may come at one time."""
        for number, due_ns in arrivals:
            async with self._run.scheduler.turn_for(WorkStage.REQUEST):
                history = self._conversations.history(number)
                if history is not None:
                    history.prepare()
            if history is not None:
                await ready.put((due_ns, history))
        await ready.put(None)

    async def _play(self, person: SimulatedPerson, history: History, due_ns: int) -> None:
        """Make a conversation ready, begin it on time and play it to its end."""
        body = history.body()
        spare = await self._spare_until(due_ns)
        if spare is not None:
            spare.release()  # into the pool, from which the request takes it at once
        if self._came_due(due_ns):
            if self._closed_ns is not None or person.leaving.is_set():
                drop_turn(self._run, history, due_ns)
            else:
                await converse(self._run, person, history, due_ns, body)
        del self.people[history.conversation.index]

    async def _spare_until(self, due_ns: int) -> Connection | None:
        """Wait until due, with an open connection to show for it if there was one to be had by then."""
        opening = self._run.open_spare()
        await self._timer.until(due_ns)
        if opening is None:
            return None
        if not opening.done():
            opening.cancel()  # the request opens its own, and its records say how that went
            return None
        return None if opening.cancelled() or opening.exception() is not None else opening.result()

    def _came_due(self, due_ns: int) -> bool:
        """Whether it is past, and was so before the level's end."""
        now_ns = self._run.timeline.now_ns()
        return due_ns <= (now_ns if self._closed_ns is None else self._closed_ns)
