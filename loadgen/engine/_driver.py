"""The engine's people: who is in which conversation, level by level, in closed and in open loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from loadgen._messages import ArrivalSchedule, ConversationEnded, NothingToPlay
from loadgen._replay import replayed
from loadgen.engine._arrival_plan import arrivals_of
from loadgen.engine._conversation import converse
from loadgen.engine._history import History
from loadgen.engine._ledger import Window
from loadgen.engine._open_loop import OpenLoop
from loadgen.engine._person import SimulatedPerson, first, pause_until
from loadgen.engine._run import EngineRun
from scenarios import Scenario, plan
from turnbench.outcomes import Outcome

_READY_AHEAD = 64
"""Requests of arrivals to come that are kept made."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class LoadDriver:
    """Plays conversations for Locust's users; every finished turn is told through the run."""

    def __init__(self, run: EngineRun, scenario: Scenario, spawn: Spawn) -> None:
        self.run = run
        self.job = run.job
        self._scenario = scenario
        self._timeline = run.timeline
        self._spawn = spawn
        self._next = self.job.worker
        self._open = asyncio.Event()
        self._people: dict[int, tuple[SimulatedPerson, asyncio.Task[None]]] = {}
        self._arrivals: Iterator[tuple[int, int]] | None = None
        self._open_loop = OpenLoop(run)

    # --- what Locust asks for ---

    def begin_level(self, level: int, arrivals: ArrivalSchedule | None = None) -> None:
        """Let people begin; in open loop `arrivals` says from when and at which rate they come."""
        self.run.level, self.run.window = level, Window()
        if arrivals is not None:
            self._arrivals = self._when(arrivals)
        self._open_loop.open()
        self._open.set()

    @property
    def next_conversation(self) -> int:
        """The lowest number from which on this worker has begun no conversation."""
        return self._next

    def measure(self, start_ns: int, end_ns: int | None) -> None:
        """Tell the window of the level, as soon as it is known: what `unfinished` means hangs on it."""
        self.run.window = Window(start_ns, end_ns)

    def play(self, user: int) -> None:
        """Play one conversation for this user; ConversationEnded is emitted when it has ended."""
        person = SimulatedPerson()
        self._people[user] = (person, self._spawn(self._play(user, person)))

    def leave(self, user: int) -> None:
        """This user begins no further turn; the one under way goes on to its end."""
        if user in self._people:
            self._people[user][0].leaving.set()

    async def drained(self, drain_s: float) -> int:
        """Wait until no measured turn is open; the number still open when `drain_s` is over."""
        until = self._timeline.now_ns() + int(drain_s * 1e9)
        while (count := self._measured_open()) and self._timeline.now_ns() < until:
            await asyncio.sleep(0.05)
        return count

    async def stop_turns(self, drain_s: float) -> None:
        """Begin no further turn, and wait at most `drain_s` for those under way."""
        self._send_all_home()
        until = self._timeline.now_ns() + int(drain_s * 1e9)
        while self.run.open and self._timeline.now_ns() < until:
            await asyncio.sleep(0.05)

    async def cut(self) -> None:
        """End every conversation now: open turns become `unfinished` (measured) or `cut`."""
        self._send_all_home()
        for turn in self.run.open:
            outcome: Outcome = "unfinished" if self.run.is_measured(turn) else "cut"
            if turn.exchange is not None:
                turn.exchange.cut(outcome, "the level ended while this turn ran")
        if tasks := [task for _, task in self._people.values()]:
            await asyncio.wait(tasks)

    def end(self) -> None:
        """The run is over."""
        self._open_loop.end()

    # --- who plays what ---

    def _send_all_home(self) -> None:
        """Nobody begins a further turn."""
        self._open.clear()
        self._open_loop.close()
        for person, _ in self._people.values():
            person.leaving.set()

    def _measured_open(self) -> int:
        return sum(self.run.is_measured(turn) for turn in self.run.open)

    async def _play(self, user: int, person: SimulatedPerson) -> None:
        await first(self._open.wait(), person.leaving.wait())
        left = True
        if self.job.settings.arrival_rate_per_s is not None:
            await self._receive(person)
        elif not person.leaving.is_set():
            left = await self._converse(person)
        del self._people[user]
        self.run.emit(ConversationEnded(user) if left else NothingToPlay(user))

    async def _converse(self, person: SimulatedPerson) -> bool:
        """Closed loop: play the next conversation; False if the scenario has no more."""
        history = self._take()
        if history is None:
            return False
        started_ns = self._timeline.now_ns()
        if not await converse(self.run, person, history, started_ns):
            rested_ns = started_ns + int(self.run.failure_pause_s * 1e9)
            await pause_until(person, self._timeline, rested_ns)
        return True

    def _take(self) -> History | None:
        """This worker's next conversation, the first that fits into the model's context; None: no more."""
        size = self._scenario.size or 1
        for _ in range(size):  # each may be too long, whatever the other workers have
            number, self._next = self._next, self._next + self.job.workers
            if self.job.settings.once and number >= size:
                return None
            if (history := self._history(number)) is not None:
                return history
        return None

    def _history(self, number: int) -> History | None:
        """A conversation that is about to begin; None if it needs more context than there is."""
        conversation = plan(self._scenario, self.job.settings.seed, number)
        needed, context = conversation.needs_context, self.job.context
        too_long = needed is not None and context is not None and needed > context
        return None if too_long else History(conversation, self.job, self.run.level)

    async def _receive(self, host: SimulatedPerson) -> None:
        """Open loop: begin each conversation when it arrives, until this person leaves.

        Each is awaited by its time, never by a sum of sleeps: one that comes late makes no other late.
        """
        arrivals, self._arrivals = self._arrivals, None
        if arrivals is None:  # a second person here: the arrivals are another's
            await host.leaving.wait()
            return
        ready: asyncio.Queue[tuple[int, History] | None] = asyncio.Queue(_READY_AHEAD)
        making = self._spawn(self._make_ready(arrivals, ready))
        try:
            await self._receive_all(host, ready)
        finally:
            making.cancel()
            await asyncio.wait([making])

    async def _receive_all(
        self, host: SimulatedPerson, ready: asyncio.Queue[tuple[int, History] | None]
    ) -> None:
        while (arrival := await ready.get()) is not None:
            due_ns, history = arrival
            await first(self._open_loop.until_early(due_ns), host.leaving.wait())
            if host.leaving.is_set() and not self._open_loop.came_due(due_ns):
                return
            number = history.conversation.index
            self._next = number + self.job.workers
            person, key = SimulatedPerson(), -1 - number  # Locust's people have positive numbers
            self._people[key] = (person, self._spawn(self._arrive(key, person, history, due_ns)))

    async def _make_ready(
        self, arrivals: Iterator[tuple[int, int]], ready: asyncio.Queue[tuple[int, History] | None]
    ) -> None:
        """Keep the next requests made: many long ones may come at one time."""
        for number, due_ns in arrivals:
            async with self.run.scheduler:
                history = self._history(number)
                if history is not None:
                    history.make_ready()
            if history is not None:
                await ready.put((due_ns, history))
        await ready.put(None)

    def _when(self, arrivals: ArrivalSchedule) -> Iterator[tuple[int, int]]:
        if self.job.settings.replay_speed is not None:
            return replayed(self.job, self._scenario, arrivals.start_ns)
        return arrivals_of(self.job, arrivals)

    async def _arrive(self, key: int, person: SimulatedPerson, history: History, due_ns: int) -> None:
        await self._open_loop.receive(person, history, due_ns)
        del self._people[key]
