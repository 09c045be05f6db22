"""One run in this engine: where its requests go, which turns are open, and what has become of all turns."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from loadgen._messages import (
    AnswersOdd,
    EngineMessage,
    Job,
    RequestChanged,
    StreamsCompressed,
    TurnBegun,
    TurnEnded,
)
from loadgen.dialects import DIALECTS, ODDITIES
from loadgen.engine._garbage import GarbageLook
from loadgen.engine._person import PatienceTimer, SimulatedPerson
from loadgen.engine._record import AttemptId
from loadgen.engine._request_form import REQUEST_ID, RequestForm
from loadgen.options._endpoint import address_of
from loadgen.options._headers import headers_of, secrets_of
from loadgen.options._settings import Settings
from loadgen.transport._exchange import Exchange
from loadgen.transport._http import StampedConnector
from loadgen.transport._wire import DRAIN_EVERY_S
from loadgen.transport._work import WorkScheduler, WorkStage
from turnbench.clock import Timeline
from turnbench.formats import HealthLine, TurnRecord, counts_line
from turnbench.formats.turn import encode

Emit = Callable[[EngineMessage], None]

_OVERSIZED_BYTES = 64 * 1024 * 1024
_RECORD_AFTER_S = DRAIN_EVERY_S + 0.01
"""So long after a turn its record is made: by then the next request of its person has left, and the tap has
been drained."""
_RECORD_WITHIN_S = 0.25
"""So long a record may wait for its turn, beside work that somebody waits for."""
_AFTER_COMPLETE_NS = 250_000_000
"""So long after a reply is whole the end of the response may come, before the turn ends without it."""


@dataclass(slots=True)
class TurnCounts:
    """The ledger of turns, cumulative: planned = begun + dropped, begun = finished + still open."""

    planned: int = 0
    dropped: int = 0
    begun: int = 0
    finished: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """When a level measures, on this worker's time line; not yet known at first."""

    start_ns: int | None = None
    end_ns: int | None = None

    def holds(self, sent_ns: int) -> bool:
        if self.start_ns is None or sent_ns < self.start_ns:
            return False
        return self.end_ns is None or sent_ns < self.end_ns


@dataclass(slots=True, eq=False)
class OpenTurn:
    """A turn that has begun and not ended: its attempts, and the pauses between them."""

    person: SimulatedPerson
    begun_ns: int
    place: tuple[str, int, int]
    """Its task, the number of its conversation, and its own in that, from 1."""
    patience: PatienceTimer | None = None
    first: Exchange | None = None
    exchange: Exchange | None = None
    """The attempt under way; None between two."""
    look_ns: int = 0
    """From when on it may be overdue."""

    @property
    def moment_ns(self) -> int:
        """What places the turn in a level: when its first attempt was sent, or when it began without.

        Not when a later attempt was sent: a turn that was hard to get through would leave the window.
        """
        sent_ns = self.first.log.sent_ns if self.first is not None else None
        return self.begun_ns if sent_ns is None else sent_ns


class EngineRun:
    """Sends the attempts of one run, keeps those under way and counts and reports what became of them."""

    failure_pause_s = 1.0
    """A failed conversation takes its person at least this long, so that a dead server is not hammered."""

    def __init__(self, job: Job, session: aiohttp.ClientSession, timeline: Timeline, emit: Emit) -> None:
        self.job = job
        self.timeline = timeline
        self.emit = emit
        self.dialect = DIALECTS[job.dialect]
        self.ledger = TurnCounts()
        self.level = 0
        self.window = Window()
        self.open: set[OpenTurn] = set()
        self.scheduler = WorkScheduler()
        self.system_role = True
        """Whether the model takes a system message, as far as it has not refused one."""
        self.form = RequestForm(self.dialect, job.settings.body)
        self._compressed = False
        self._odd: set[str] = set()
        self._unreported: deque[tuple[int, Callable[[], TurnRecord], bool]] = deque()
        """From when on each record may be made, what makes it, and whether its turn is done."""
        self._has_unreported = asyncio.Event()
        self._counts_file: IO[bytes] | None = None
        if job.counts_path:
            with suppress(OSError):  # a worker on another machine has no such file
                self._counts_file = open(job.counts_path, "r+b", buffering=0)  # noqa: SIM115
        self._session = session
        self._url = URL(address_of(job.settings.host).of(self.dialect.path))
        self._headers = headers_of(job.settings, job.dialect)
        session.headers.update(self._headers)
        self._sends_id = REQUEST_ID.lower() not in {name.lower() for name in self._headers}
        self.secrets = secrets_of(job.settings, self._headers)

    @property
    def in_flight(self) -> list[Exchange]:
        """The requests under way."""
        return [turn.exchange for turn in self.open if turn.exchange is not None]

    def begin(self, turn: OpenTurn) -> None:
        counts = self.ledger
        counts.planned += 1
        counts.begun += 1
        self.open.add(turn)
        # At once, before its request: whoever outlives this process knows of every turn that the server saw.
        if not self._written_down():
            self.emit(TurnBegun(counts.planned, counts.dropped, counts.begun, counts.finished))

    def _written_down(self) -> bool:
        """Whether the counts are in the file that outlives this process; the kernel has them then."""
        if self._counts_file is None:
            return False
        counts = self.ledger
        line = HealthLine(
            t_ns=self.timeline.now_ns(), worker=self.job.worker, planned=counts.planned,
            dropped=counts.dropped, begun=counts.begun, finished=counts.finished,
        )  # fmt: skip
        try:
            os.pwrite(self._counts_file.fileno(), counts_line(line), 0)
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """No turn begins any more."""
        if self._counts_file is not None:
            self._counts_file.close()
            self._counts_file = None

    def end(self, turn: OpenTurn) -> None:
        self.open.discard(turn)
        self.ledger.finished += 1

    async def attempt(self, turn: OpenTurn, attempt: AttemptId, body: bytes) -> Exchange:
        """Send one request and wait for its end."""
        turn.exchange = exchange = Exchange(self.dialect)
        turn.first, turn.look_ns = turn.first or exchange, 0
        own = self.form.headers(attempt.request_id(self.job.run)) if self._sends_id else {}
        post = partial(self._session.post, self._url, data=body, headers=own, allow_redirects=False)
        await exchange.run(post, self.scheduler)
        turn.exchange = None
        if exchange.refused is None:
            exchange.asks_again = self.form.learn(exchange.status, exchange.error, body, own.values())
            for note in self.form.take_notes():
                self.emit(RequestChanged(self.secrets.scrubbed(note)))
        if not self._compressed and exchange.encoding.strip().lower() not in ("", "identity"):
            self._compressed = True
            self.emit(StreamsCompressed(self.secrets.scrubbed(exchange.encoding)[:40]))
        for name in exchange.reply.oddities:
            self.note(ODDITIES[name])
        return exchange

    def note(self, what: str) -> None:
        """Report something odd and harmless about the server's answers, once a run."""
        if what not in self._odd:
            self._odd.add(what)
            self.emit(AnswersOdd(what))

    def open_spare(self) -> asyncio.Task[Connection] | None:
        """Begin to open a connection, or to take a free one, and hold it; None if there may be a proxy."""
        connector = self._session.connector
        if self.job.settings.trust_env or not isinstance(connector, StampedConnector):
            return None
        return asyncio.get_running_loop().create_task(connector.spare(self._url, self._session.timeout))

    def is_measured(self, turn: OpenTurn) -> bool:
        """Sent in the window; or begun in it and still not sent, since somebody waits for it all the same."""
        return self.window.holds(turn.moment_ns)

    def report_later(self, made: Callable[[], TurnRecord], done: bool) -> None:
        """Send the record that `made` gives to Locust's side once nobody waits for anything else.

        `done` says that no other attempt at its turn follows.
        """
        self._unreported.append((self.timeline.now_ns() + int(_RECORD_AFTER_S * 1e9), made, done))
        self._has_unreported.set()

    async def keep_reporting(self) -> None:
        """Some times a second, send what waits while nothing more urgent does; until cancelled."""
        while True:
            await self._has_unreported.wait()
            self._has_unreported.clear()
            while self._unreported:
                await asyncio.sleep(DRAIN_EVERY_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RECORD_WITHIN_S):
                        while self._is_due():
                            async with self.scheduler.turn_for(WorkStage.RECORD):
                                self._report_next()
                                while self._is_due() and self.scheduler.has_moment:
                                    self._report_next()
                while self._is_due(_RECORD_WITHIN_S):  # a full core would leave it for ever to what is urgent
                    async with self.scheduler.turn_for(WorkStage.REQUEST):
                        self._report_next()

    def _is_due(self, for_s: float = 0.0) -> bool:
        """Whether a record may be made, since so long."""
        waiting = self._unreported
        return bool(waiting) and waiting[0][0] + int(for_s * 1e9) <= self.timeline.now_ns()

    def report_all(self) -> None:
        """Send now what waits."""
        while self._unreported:
            self._report_next()

    def _report_next(self) -> None:
        if self._unreported:  # all may have been reported while this one waited for its turn
            _, made, done = self._unreported.popleft()
            self.report(made(), done)

    def report(self, record: TurnRecord, done: bool) -> None:
        """Send a record to Locust's side; `done` says that no other attempt at its turn follows."""
        arrivals_us = record.event_us
        self.emit(
            TurnEnded(
                line=encode(record),
                task=record.task,
                outcome=record.outcome,
                done=done,
                error=record.error,
                chars=record.chars,
                ttg_ms=arrivals_us[-1] / 1000 if arrivals_us else None,
            )
        )


async def watch(run: EngineRun, every_s: float = 0.1) -> None:
    """End turns that went silent, run too long, say too much, or whose person has left; until cancelled."""
    garbage = GarbageLook(run.scheduler)
    while True:
        await asyncio.sleep(every_s)
        now_ns = run.timeline.now_ns()
        for turn in run.open:
            if turn.patience is not None and not turn.person.leaving.is_set():
                # Also while the turn waits for another attempt.
                why = turn.patience.spent(turn.exchange, turn.begun_ns, now_ns)
                if why is not None:
                    turn.person.leaving.set()
                    if turn.exchange is not None:
                        turn.exchange.cut("abandoned", why)
            if turn.exchange is not None and now_ns > turn.look_ns:
                turn.look_ns = _end_overdue(turn.exchange, run.job.settings, now_ns)
        garbage.consider(len(run.open))


def _end_overdue(exchange: Exchange, settings: Settings, now_ns: int) -> int:
    """End a request that went silent, runs too long or says too much; when to look at it again."""
    log, sent_ns = exchange.log, exchange.log.sent_ns
    if sent_ns is None:
        return now_ns
    last_ns = log.at_ns[-1] if log.at_ns else sent_ns
    stalled_ns, deadline_ns = int(settings.idle_timeout_s * 1e9), sent_ns + int(settings.deadline_s * 1e9)
    if now_ns > last_ns + stalled_ns:
        exchange.catch_up()
        last_ns = log.at_ns[-1] if log.at_ns else sent_ns
    if now_ns > deadline_ns:
        exchange.cut("deadline", f"not done {settings.deadline_s:g} s after sending (--deadline)")
    elif now_ns > last_ns + stalled_ns:
        exchange.cut("stalled", f"no byte for {settings.idle_timeout_s:g} s (--idle-timeout)")
    elif now_ns > last_ns + _AFTER_COMPLETE_NS and exchange.is_complete():
        exchange.cut("ok", None)
    elif len(log.raw) > _OVERSIZED_BYTES:
        exchange.cut("oversized", f"over {_OVERSIZED_BYTES >> 20} MiB in one reply")
    return min(now_ns + _AFTER_COMPLETE_NS, last_ns + stalled_ns, deadline_ns)
