"""The engine's people: who is in which conversation, what is open, and the ledger of turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from loadgen._arrival_plan import arrivals_of
from loadgen._clock import Timeline
from loadgen._exchange import Exchange
from loadgen._records import Outcome, TurnRecord, encode
from loadgen._request import body_of_turn, encode_body, headers_of, secrets_of, think_s
from loadgen._settings import Job, base_url
from loadgen._turn_record import Place, dropped_record, record_of
from loadgen._turnstile import Turnstile
from scenarios import Conversation, Scenario, Turn, opening, plan

_OVERSIZED_BYTES = 64 * 1024 * 1024
_WATCH_S = 0.1
_FAILURE_PAUSE_S = 1.0
"""A failed conversation takes its person at least this long, so that a dead server is not hammered."""

Emit = Callable[[dict[str, Any]], None]
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(slots=True)
class Ledger:
    """Cumulative counts of turns: planned = begun + dropped, begun = finished + still open."""

    planned: int = 0
    dropped: int = 0
    begun: int = 0
    finished: int = 0


@dataclass(slots=True)
class Person:
    """One simulated person in one conversation."""

    leaving: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Window:
    """When a level measures, on this worker's time line; not yet known at first."""

    start_ns: int | None = None
    end_ns: int | None = None

    def holds(self, sent_ns: int | None) -> bool:
        if sent_ns is None or self.start_ns is None or sent_ns < self.start_ns:
            return False
        return self.end_ns is None or sent_ns < self.end_ns


class Stage:
    """Plays conversations for Locust's users and reports every finished turn through `emit`."""

    def __init__(
        self,
        job: Job,
        scenario: Scenario,
        session: aiohttp.ClientSession,
        timeline: Timeline,
        emit: Emit,
        spawn: Spawn,
    ) -> None:
        self.job = job
        self.ledger = Ledger()
        self.in_flight: set[Exchange] = set()
        self._scenario = scenario
        self._session = session
        self._timeline = timeline
        self._emit = emit
        self._spawn = spawn
        self._turnstile = Turnstile()
        self._url = base_url(job.settings.host) + "/chat/completions"
        self._headers = headers_of(job.settings)
        self._secrets = secrets_of(job.settings, self._headers)
        self._next = job.worker
        self._level = 0
        self._window = Window()
        self._open = asyncio.Event()
        self._people: dict[int, tuple[Person, asyncio.Task[None]]] = {}
        self._arrivals: Iterator[tuple[int, int]] | None = None

    # --- what Locust asks for ---

    def begin_level(self, level: int, arrivals: dict[str, Any] | None = None) -> None:
        """Let people begin; in open loop `arrivals` says from when and at which rate they come."""
        self._level, self._window = level, Window()
        if arrivals is not None:
            self._arrivals = arrivals_of(self.job, **arrivals)
        self._open.set()

    @property
    def next_conversation(self) -> int:
        """The lowest number from which on this worker has begun no conversation."""
        return self._next

    def measure(self, start_ns: int, end_ns: int | None) -> None:
        """Tell the window of the level, as soon as it is known: what `unfinished` means hangs on it."""
        self._window = Window(start_ns, end_ns)

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
        while self.in_flight and self._timeline.now_ns() < until:
            await asyncio.sleep(0.05)

    async def cut(self) -> None:
        """End every conversation now: open turns become `unfinished` (measured) or `cut`."""
        self._open.clear()
        for person, _ in self._people.values():
            person.leaving.set()
        for exchange in list(self.in_flight):
            outcome: Outcome = "unfinished" if self._is_measured(exchange) else "cut"
            exchange.cut(outcome, "the level ended while this turn ran")
        # All of them: one who waits for another attempt has no exchange, but an open turn in the ledger.
        if tasks := [task for _, task in self._people.values()]:
            await asyncio.wait(tasks)

    # --- how a conversation goes ---

    def _measured_open(self) -> int:
        return sum(self._is_measured(exchange) for exchange in self.in_flight)

    def _is_measured(self, exchange: Exchange) -> bool:
        """Sent in the window; or begun in it and still not sent, since somebody waits for it all the same."""
        return self._window.holds(exchange.log.sent_ns or exchange.started_ns)

    async def _play(self, user: int, person: Person) -> None:
        await _first(self._open.wait(), person.leaving.wait())
        if self.job.settings.arrival_rate_per_s is not None:
            await self._receive(person)
        elif not person.leaving.is_set():
            number, self._next = self._next, self._next + self.job.workers
            once = self.job.settings.once
            if once and number >= (self._scenario.size or 0):
                del self._people[user]
                self._emit({"op": "exhausted", "user": user})
                return
            started_ns = self._timeline.now_ns()
            if not await self._converse(person, number, started_ns):
                await self._pause_until(person, started_ns + int(_FAILURE_PAUSE_S * 1e9))
        del self._people[user]
        self._emit({"op": "played", "user": user})

    async def _receive(self, host: Person) -> None:
        """Open loop: begin each conversation when it arrives, until this person leaves.

        Each is awaited by its time, never by a sum of sleeps: one that comes late makes no other late.
        """
        arrivals, self._arrivals = self._arrivals, None
        if arrivals is None:  # a second person here: the arrivals are another's
            await host.leaving.wait()
            return
        for number, due_ns in arrivals:
            await self._pause_until(host, due_ns)
            if host.leaving.is_set():
                if due_ns > self._timeline.now_ns():
                    return
                self._drop(plan(self._scenario, self.job.settings.seed, number), 0, due_ns)
                continue
            self._next = number + self.job.workers
            person, key = Person(), -1 - number  # Locust's people have positive numbers
            self._people[key] = (person, self._spawn(self._arrive(key, person, number, due_ns)))

    async def _arrive(self, key: int, person: Person, number: int, due_ns: int) -> None:
        await self._converse(person, number, due_ns)
        del self._people[key]

    def _drop(self, conversation: Conversation, index: int, due_ns: int) -> TurnRecord:
        """A turn that became due and could not begin before the level's end: counted, never made up."""
        self.ledger.planned += 1
        self.ledger.dropped += 1
        last = index + 1 == len(conversation.turns)
        place = Place(conversation.index, index + 1, 1, conversation.task, due_ns, last)
        record = dropped_record(self.job, place)
        self._tell(record)
        return record

    async def _converse(self, person: Person, number: int, due_ns: int) -> bool:
        """One conversation, its follow-ups answering the server's real replies; False if a turn failed."""
        conversation = plan(self._scenario, self.job.settings.seed, number)
        messages = opening(conversation, self.job.salt, self._level)
        for index, turn in enumerate(conversation.turns):
            if index:
                due_ns += int(think_s(self.job.settings, turn) * 1e9)
                await self._pause_until(person, due_ns)
                if person.leaving.is_set():
                    break
                messages.append({"role": "user", "content": turn.user})
            played = await self._turn(person, conversation, index, turn, messages, due_ns)
            if played is None:
                break
            record, answer = played
            if record.outcome != "ok":
                return record.outcome in ("cut", "unfinished", "dropped")
            messages.append({"role": "assistant", "content": answer})
            due_ns = record.end_ns or due_ns
            if person.leaving.is_set():
                break
        return True

    async def _turn(
        self,
        person: Person,
        conversation: Conversation,
        index: int,
        turn: Turn,
        messages: list[dict[str, str]],
        due_ns: int,
    ) -> tuple[TurnRecord, str] | None:
        """One turn with its attempts: a stale connection once more at once, others as --retry asks.

        None in closed loop where the person left before it could begin.
        """
        async with self._turnstile:
            if person.leaving.is_set():  # while this turn waited here
                open_loop = self.job.settings.arrival_rate_per_s is not None
                return (self._drop(conversation, index, due_ns), "") if open_loop else None
            body = encode_body(body_of_turn(self.job, conversation, turn, messages))
        self.ledger.planned += 1
        self.ledger.begun += 1
        retries, was_stale, attempt = self.job.settings.retry, False, 0
        while True:
            attempt += 1
            last = index + 1 == len(conversation.turns)
            place = Place(conversation.index, index + 1, attempt, conversation.task, due_ns, last)
            exchange = await self._attempt(person, place, body)
            record = record_of(self.job, place, exchange, self._timeline.now_ns(), self._secrets)
            stale = exchange.outcome == "stale_connection" and not was_stale
            again = not person.leaving.is_set() and (stale or (_may_retry(exchange.outcome) and retries > 0))
            self.ledger.finished += not again
            self._tell(record)
            if not again:
                return record, "".join(exchange.reply.answer)
            if stale:
                was_stale = True
            else:
                retries -= 1
                wait_s = exchange.retry_after_s if exchange.retry_after_s is not None else _FAILURE_PAUSE_S
                await self._pause_until(person, self._timeline.now_ns() + int(wait_s * 1e9))
                if person.leaving.is_set():
                    self.ledger.finished += 1
                    return record, ""

    async def _attempt(self, person: Person, place: Place, body: bytes) -> Exchange:
        exchange = Exchange(self._timeline.now_ns())
        self.in_flight.add(exchange)
        headers = self._headers | {"X-Request-Id": place.request_id(self.job.run)}
        await exchange.run(self._session, self._url, body, headers, self._turnstile)
        self.in_flight.discard(exchange)
        return exchange

    async def _pause_until(self, person: Person, due_ns: int) -> None:
        """Sleep until then, or until this person leaves."""
        wait_s = (due_ns - self._timeline.now_ns()) / 1e9
        if wait_s > 0:
            await _first(asyncio.sleep(wait_s), person.leaving.wait())

    def _tell(self, record: TurnRecord) -> None:
        events = record.event_us
        self._emit(
            {
                "op": "turn",
                "line": encode(record),
                "task": record.task,
                "outcome": record.outcome,
                "error": record.error,
                "chars": record.chars,
                "ttft_ms": events[0] / 1000 if events else None,
                "ttg_ms": events[-1] / 1000 if events else None,
            }
        )

    async def watch(self) -> None:
        """End turns that went silent, run too long or say too much; runs until cancelled."""
        settings = self.job.settings
        idle_ns, deadline_ns = int(settings.idle_timeout_s * 1e9), int(settings.deadline_s * 1e9)
        while True:
            await asyncio.sleep(_WATCH_S)
            now_ns = self._timeline.now_ns()
            for exchange in list(self.in_flight):
                log = exchange.log
                if log.sent_ns is None:
                    continue
                last_ns = log.at_ns[-1] if log.at_ns else log.sent_ns
                if now_ns - log.sent_ns > deadline_ns:
                    exchange.cut("deadline", f"not done {settings.deadline_s:g} s after sending (--deadline)")
                elif now_ns - last_ns > idle_ns:
                    exchange.cut("stalled", f"no byte for {settings.idle_timeout_s:g} s (--idle-timeout)")
                elif log.size > _OVERSIZED_BYTES:
                    exchange.cut("oversized", f"over {_OVERSIZED_BYTES >> 20} MiB in one reply")


def _may_retry(outcome: Outcome) -> bool:
    """Whether --retry covers it: what another attempt can mend."""
    return outcome in ("connect", "connect_timeout", "http_429", "http_5xx", "disconnected", "dns")


async def _first(*waits: Any) -> None:
    """Wait for the first of these and drop the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
