"""One answer on its way out: whoever keeps the schedule calls `token` when a token is due."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from serve.emulator.answer import Answer
from serve.emulator.clock import Lateness, monotonic_ns
from serve.emulator.connection import Reply as Abandoned
from serve.emulator.connection import Sent, head
from serve.emulator.events import Events
from serve.emulator.request import Ask
from serve.emulator.truth import Truth, TruthLog

_STREAM_HEAD = head(200, "text/event-stream; charset=utf-8", "Transfer-Encoding: chunked")


READY_EVENTS = 32
"""So many events are made at once. One by one, between thousands of other streams, each would find nothing of
what it needs in the processor's cache; all at once, long answers would fill the memory."""


class Wire(Protocol):
    """Where an answer goes: its connection, or a fault in front of it."""

    @property
    def reply(self) -> Abandoned | None: ...

    @reply.setter
    def reply(self, reply: Abandoned | None) -> None: ...

    def write(self, data: bytes, sent: Sent | None = None) -> None: ...

    def hand_over(self, data: bytes, later: Sent | None) -> int: ...

    def respond(self, status: int, body: bytes, content_type: str, sent: Sent | None = None) -> None: ...

    def done(self) -> None: ...


@dataclass(slots=True)
class Counters:
    """What /metrics tells; totals since the start."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    preemptions: int = 0
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0})


@dataclass(slots=True)
class Books:
    """Where every reply is entered: the truth log, the lateness and the counters."""

    truth: TruthLog
    lateness: Lateness = field(default_factory=Lateness)
    counters: Counters = field(default_factory=Counters)


class Reply:
    """Sends one answer and books when each part really left."""

    def __init__(self, connection: Wire, ask: Ask, answer: Answer, events: Events, books: Books) -> None:
        self.ask = ask
        self.answer = answer
        self.cached_tokens: int | None = None
        self.ended = False
        self.on_end: Callable[[], None] | None = None
        self._connection = connection
        self._events = events
        self._books = books
        self._write = connection.write
        self._hand_over = connection.hand_over
        self.made = 0
        self._ready: list[bytes] = []
        # Up to here tokens are nothing but events with text; the last one of a stream is more.
        self._plain_until = answer.tokens if ask.stream else 0
        self._role_due = ask.chat
        self._note = books.lateness.note
        self._event_ns = array("q") if books.truth.is_kept else None
        self._head_ns: int | None = None
        connection.reply = self

    def begin(self, with_role: bool) -> None:
        """Send a stream's head, with the role event if it shall not wait for the first token."""
        if self.ask.stream:
            self._role_due = self.ask.chat and not with_role
            role = self._events.role() if with_role else b""
            self._write(_STREAM_HEAD + role, self._head_sent)

    def token(self, due_ns: int) -> bool:
        """Send the next token's event, due at this moment; True when it was the last."""
        made = self.made = self.made + 1
        if made >= self._plain_until or self._role_due:
            return self._special_token(made, due_ns)
        ready = self._ready or self._make_ready(made)
        now_ns = self._hand_over(ready.pop(), partial(self._event_sent, due_ns))
        if now_ns:
            self._event_sent(due_ns, now_ns)
        return False

    def _event_sent(self, due_ns: int, now_ns: int) -> None:
        self._note(due_ns, now_ns)
        if self._event_ns is not None:
            self._event_ns.append(now_ns)

    def _make_ready(self, number: int) -> list[bytes]:
        """The next events from this token on, the first of them at the end of the list."""
        ending = min(number - 1 + READY_EVENTS, self.answer.tokens - 1)
        ready = self._events.contents(self.answer.pieces[number - 1 : ending], number)
        ready.reverse()
        self._ready = ready
        return ready

    def _special_token(self, made: int, due_ns: int) -> bool:
        last = made == self.answer.tokens
        if not self.ask.stream:
            return self._end_whole() if last else False
        if self._role_due:
            self._role_due = False
            self._write(self._events.role())
        if last:
            self._last_token(made - 1, due_ns)
        else:
            self._write(self._make_ready(made).pop(), partial(self._event_sent, due_ns))
        return last

    def _last_token(self, index: int, due_ns: int) -> None:
        if self.answer.stop_event:
            self._write(self._events.last("", self.made))
        else:
            event = self._events.last(self.answer.pieces[index], self.made)
            self._write(event, partial(self._event_sent, due_ns))
        self._write(self._events.tail(self.cached_tokens), self._end)

    def _end_whole(self) -> bool:
        body = self._events.whole(self.cached_tokens)
        self._connection.respond(200, body, "application/json", self._end_with_head)
        return True

    def abandon(self) -> None:
        """The client has gone: stop, and book what was sent."""
        if self.ended:
            return
        self._book(None, aborted=True)

    def _head_sent(self, now_ns: int) -> None:
        self._head_ns = now_ns

    def _end_with_head(self, now_ns: int) -> None:
        self._head_ns = now_ns
        self._end(now_ns)

    def _end(self, now_ns: int) -> None:
        self._book(now_ns, aborted=False)
        self._connection.done()

    def _book(self, end_ns: int | None, aborted: bool) -> None:
        self.ended = True
        counters = self._books.counters
        counters.finished["abort" if aborted else self.answer.finish_reason] += 1
        if self._event_ns is not None:
            truth = Truth(
                request_id=self.ask.request_id,
                received_ns=self.ask.received_ns,
                head_ns=self._head_ns,
                event_ns=self._event_ns.tolist(),
                end_ns=end_ns if end_ns is not None else monotonic_ns(),
                output_tokens=self.made,
                aborted=aborted,
            )
            self._books.truth.write(truth)
        if self.on_end is not None:
            on_end, self.on_end = self.on_end, None  # it knows this reply: no cycle for the garbage collector
            on_end()
