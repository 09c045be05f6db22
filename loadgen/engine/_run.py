"""What all turns of a run share: the way to the server, the ledger, and who is told of what came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import aiohttp
from aiohttp.connector import Connection

from loadgen._headers import headers_of, secrets_of
from loadgen._messages import EngineMessage, StreamsCompressed, TurnEnded
from loadgen._settings import Job, base_url
from loadgen.engine._ledger import TurnCounts, Window
from loadgen.engine._patience import PatienceTimer
from loadgen.engine._person import SimulatedPerson
from loadgen.engine._turn_record import AttemptId
from loadgen.transport._exchange import Exchange
from loadgen.transport._http import StampedConnector
from loadgen.transport._scheduler import WorkScheduler
from turnbench.clock import Timeline
from turnbench.formats import TurnRecord
from turnbench.formats.turn import encode

Emit = Callable[[EngineMessage], None]


@dataclass(slots=True, eq=False)
class OpenTurn:
    """A turn that has begun and not ended: its attempts, and the pauses between them."""

    person: SimulatedPerson
    begun_ns: int
    patience: PatienceTimer | None = None
    first: Exchange | None = None
    exchange: Exchange | None = None
    """The attempt under way; None between two."""

    @property
    def moment_ns(self) -> int:
        """What places the turn in a level: when its first attempt was sent, or when it began without.

        Not when a later attempt was sent: a turn that was hard to get through would leave the window.
        """
        sent_ns = self.first.log.sent_ns if self.first is not None else None
        return self.begun_ns if sent_ns is None else sent_ns


class EngineRun:
    """Sends the attempts of one run and keeps those under way."""

    failure_pause_s = 1.0
    """A failed conversation takes its person at least this long, so that a dead server is not hammered."""

    def __init__(self, job: Job, session: aiohttp.ClientSession, timeline: Timeline, emit: Emit) -> None:
        self.job = job
        self.timeline = timeline
        self.emit = emit
        self.ledger = TurnCounts()
        self.level = 0
        self.window = Window()
        self.open: set[OpenTurn] = set()
        self.scheduler = WorkScheduler()
        self.system_role = True
        """Whether the model takes a system message, as far as it has not refused one."""
        self._compressed = False
        self._session = session
        self._url = base_url(job.settings.host) + "/chat/completions"
        self._headers = headers_of(job.settings)
        self.secrets = secrets_of(job.settings, self._headers)

    @property
    def in_flight(self) -> list[Exchange]:
        """The requests under way."""
        return [turn.exchange for turn in self.open if turn.exchange is not None]

    def begin(self, turn: OpenTurn) -> None:
        self.ledger.planned += 1
        self.ledger.begun += 1
        self.open.add(turn)

    def end(self, turn: OpenTurn) -> None:
        self.open.discard(turn)
        self.ledger.finished += 1

    async def attempt(self, turn: OpenTurn, place: AttemptId, body: bytes) -> Exchange:
        """Send one request and wait for its end."""
        turn.exchange = exchange = Exchange(self.timeline.now_ns())
        turn.first = turn.first or exchange
        headers = self._headers | {"X-Request-Id": place.request_id(self.job.run)}
        post = partial(self._session.post, self._url, data=body, headers=headers, allow_redirects=False)
        await exchange.run(post, self.scheduler)
        turn.exchange = None
        self._tell_of_compression(exchange.encoding)
        return exchange

    def _tell_of_compression(self, encoding: str) -> None:
        """Once a run: identity was asked for."""
        if not self._compressed and encoding.strip().lower() not in ("", "identity"):
            self._compressed = True
            self.emit(StreamsCompressed(encoding[:40]))

    def open_spare(self) -> asyncio.Task[Connection] | None:
        """Begin to open a connection, or to take a free one, and hold it; None if there may be a proxy."""
        connector = self._session.connector
        if self.job.settings.trust_env or not isinstance(connector, StampedConnector):
            return None
        return asyncio.get_running_loop().create_task(connector.spare(self._url, self._session.timeout))

    def is_measured(self, turn: OpenTurn) -> bool:
        """Sent in the window; or begun in it and still not sent, since somebody waits for it all the same."""
        return self.window.holds(turn.moment_ns)

    def tell(self, record: TurnRecord, done: bool) -> None:
        """Send a record on; `done` says that no other attempt at its turn follows."""
        events = record.event_us
        self.emit(
            TurnEnded(
                line=encode(record),
                task=record.task,
                outcome=record.outcome,
                done=done,
                error=record.error,
                chars=record.chars,
                ttft_ms=events[0] / 1000 if events else None,
                ttg_ms=events[-1] / 1000 if events else None,
            )
        )
