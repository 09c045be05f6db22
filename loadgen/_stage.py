"""The engine's people: who is in which conversation, level by level, in closed and in open loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from loadgen._arrival_plan import arrivals_of
from loadgen._conversation import converse, drop, place_of
from loadgen._ledger import Window
from loadgen._person import Person, first, pause_until
from loadgen._records import Outcome
from loadgen._wire import Wire
from scenarios import Conversation, Scenario, plan

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Stage:
    """Plays conversations for Locust's users; every finished turn is told through the wire."""

    def __init__(self, wire: Wire, scenario: Scenario, spawn: Spawn) -> None:
        self.wire = wire
        self.job = wire.job
        self._scenario = scenario
        self._timeline = wire.timeline
        self._spawn = spawn
        self._next = self.job.worker
        self._open = asyncio.Event()
        self._people: dict[int, tuple[Person, asyncio.Task[None]]] = {}
        self._arrivals: Iterator[tuple[int, int]] | None = None

    # --- what Locust asks for ---

    def begin_level(self, level: int, arrivals: dict[str, Any] | None = None) -> None:
        """Let people begin; in open loop `arrivals` says from when and at which rate they come."""
        self.wire.level, self.wire.window = level, Window()
        if arrivals is not None:
            self._arrivals = arrivals_of(self.job, **arrivals)
        self._open.set()

    @property
    def next_conversation(self) -> int:
        """The lowest number from which on this worker has begun no conversation."""
        return self._next

    def measure(self, start_ns: int, end_ns: int | None) -> None:
        """Tell the window of the level, as soon as it is known: what `unfinished` means hangs on it."""
        self.wire.window = Window(start_ns, end_ns)

    def play(self, user: int) -> None:
        """Play one conversation for this user; `played` is emitted when it has ended."""
        person = Person()
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

    async def quiet(self, drain_s: float) -> None:
        """Begin no further turn, and wait at most `drain_s` for those under way."""
        for person, _ in self._people.values():
            person.leaving.set()
        self._open.clear()
        until = self._timeline.now_ns() + int(drain_s * 1e9)
        while self.wire.open and self._timeline.now_ns() < until:
            await asyncio.sleep(0.05)

    async def cut(self) -> None:
        """End every conversation now: open turns become `unfinished` (measured) or `cut`."""
        self._open.clear()
        for person, _ in self._people.values():
            person.leaving.set()
        for turn in self.wire.open:
            outcome: Outcome = "unfinished" if self.wire.is_measured(turn) else "cut"
            if turn.exchange is not None:
                turn.exchange.cut(outcome, "the level ended while this turn ran")
        if tasks := [task for _, task in self._people.values()]:
            await asyncio.wait(tasks)

    # --- who plays what ---

    def _measured_open(self) -> int:
        return sum(self.wire.is_measured(turn) for turn in self.wire.open)

    async def _play(self, user: int, person: Person) -> None:
        await first(self._open.wait(), person.leaving.wait())
        if self.job.settings.arrival_rate_per_s is not None:
            await self._receive(person)
        elif not person.leaving.is_set():
            number, self._next = self._next, self._next + self.job.workers
            once = self.job.settings.once
            if once and number >= (self._scenario.size or 0):
                del self._people[user]
                self.wire.emit({"op": "exhausted", "user": user})
                return
            started_ns = self._timeline.now_ns()
            if not await converse(self.wire, person, self._plan(number), started_ns):
                rested_ns = started_ns + int(self.wire.failure_pause_s * 1e9)
                await pause_until(person, self._timeline, rested_ns)
        del self._people[user]
        self.wire.emit({"op": "played", "user": user})

    async def _receive(self, host: Person) -> None:
        """Open loop: begin each conversation when it arrives, until this person leaves.

        Each is awaited by its time, never by a sum of sleeps: one that comes late makes no other late.
        """
        arrivals, self._arrivals = self._arrivals, None
        if arrivals is None:  # a second person here: the arrivals are another's
            await host.leaving.wait()
            return
        for number, due_ns in arrivals:
            await pause_until(host, self._timeline, due_ns)
            if host.leaving.is_set():
                if due_ns > self._timeline.now_ns():
                    return
                drop(self.wire, place_of(self._plan(number), 0, due_ns))
                continue
            self._next = number + self.job.workers
            person, key = Person(), -1 - number  # Locust's people have positive numbers
            self._people[key] = (person, self._spawn(self._arrive(key, person, number, due_ns)))

    async def _arrive(self, key: int, person: Person, number: int, due_ns: int) -> None:
        await converse(self.wire, person, self._plan(number), due_ns)
        del self._people[key]

    def _plan(self, number: int) -> Conversation:
        return plan(self._scenario, self.job.settings.seed, number)
