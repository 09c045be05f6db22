"""One answer on its way out: whoever keeps the schedule calls `token` when a token is due."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Protocol

from serve.emulator.answers import Answer
from serve.emulator.connection import Sent, head
from serve.emulator.dialects import ReplyEvents
from serve.emulator.records import ServerRecords, TruthRecord
from serve.emulator.request import GenerationRequest

_STREAM_HEAD = head(200, "text/event-stream; charset=utf-8", "Transfer-Encoding: chunked")

READY_EVENTS = 32
"""So many events are made at once. One by one, between thousands of other streams, each would find nothing of
what it needs in the processor's cache; all at once, long answers would fill the memory."""


class ReplyChannel(Protocol):
    """Where an answer goes: its connection, or a fault in front of it."""

    def set_abandon(self, abandon: Callable[[], None] | None) -> None:
        """What to call if the client goes before `done`."""
        ...

    def write(self, data: bytes, sent: Sent | None = None) -> None:
        """Hand bytes to the kernel now, or as soon as it takes them, then call `sent`."""
        ...

    def hand_over(self, data: bytes, later: Sent | None) -> int:
        """The moment at which the kernel took all of it; 0 if it did not yet, and then `later` is called."""
        ...

    def respond(self, status: int, body: bytes, content_type: str, sent: Sent | None = None) -> None:
        """Answer with one whole body."""
        ...

    def done(self) -> None:
        """The response is complete."""
        ...


class EmulatedReply:
    """Sends one answer and records when each part really left."""

    def __init__(
        self,
        channel: ReplyChannel,
        request: GenerationRequest,
        answer: Answer,
        events: ReplyEvents,
        records: ServerRecords,
    ) -> None:
        self.request = request
        self.answer = answer
        self.cached_tokens: int | None = None
        self.ended = False
        self.on_end: Callable[[], None] | None = None
        self._channel = channel
        self._events = events
        self._records = records
        self._write = channel.write
        self._hand_over = channel.hand_over
        self.made = 0
        self._ready: list[bytes] = []
        # Up to here tokens are nothing but events with text; the last one of a stream is more.
        self._plain_until = answer.tokens if request.stream else 0
        self._opening_due = request.stream
        self._note = records.lateness.note
        self._event_ns = array("q") if records.truth.is_kept else None
        self._event_begun_ns = array("q")
        self._head_ns: int | None = None
        channel.set_abandon(self.abandon)

    def begin(self, with_opening: bool) -> None:
        """Send a stream's head, with the event that opens it if that shall not wait for the first token."""
        if self.request.stream:
            opening = self._events.opening() if with_opening else b""
            self._opening_due = not with_opening
            self._write(_STREAM_HEAD + opening, self._head_sent)

    def token(self, due_ns: int) -> bool:
        """Send the next token's event, due at this moment; True when it was the last."""
        made = self.made = self.made + 1
        if self._event_ns is not None:
            self._event_begun_ns.append(monotonic_ns())
        if made >= self._plain_until or self._opening_due:
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
        """A token that is more than an event in the middle of a stream."""
        last = made == self.answer.tokens
        if not self.request.stream:
            if last:
                body = self._events.whole(self.cached_tokens)
                self._channel.respond(200, body, "application/json", self._whole_sent)
            return last
        if self._opening_due:
            self._opening_due = False
            if opening := self._events.opening():
                self._write(opening)
        note_sent = partial(self._event_sent, due_ns)
        if not last:
            self._write(self._make_ready(made).pop(), note_sent)
            return False
        if self.answer.stop_event:
            self._write(self._events.last("", made))
        else:
            self._write(self._events.last(self.answer.pieces[made - 1], made), note_sent)
        self._write(self._events.tail(self.cached_tokens), self._end_sent)
        return True

    def abandon(self) -> None:
        """The client has gone: stop, and record what was sent."""
        if not self.ended:
            self._record(None, aborted=True)

    def _head_sent(self, now_ns: int) -> None:
        self._head_ns = now_ns

    def _whole_sent(self, now_ns: int) -> None:
        self._head_ns = now_ns
        self._end_sent(now_ns)

    def _end_sent(self, now_ns: int) -> None:
        self._record(now_ns, aborted=False)
        self._channel.done()

    def _record(self, end_ns: int | None, aborted: bool) -> None:
        self.ended = True
        counters = self._records.counters
        counters.finished["abort" if aborted else self.answer.finish_reason] += 1
        if self._event_ns is not None:
            truth = TruthRecord(
                request_id=self.request.request_id,
                received_ns=self.request.received_ns,
                head_ns=self._head_ns,
                event_ns=self._event_ns.tolist(),
                event_begun_ns=self._event_begun_ns[: len(self._event_ns)].tolist(),
                end_ns=end_ns if end_ns is not None else monotonic_ns(),
                output_tokens=self.made,
                aborted=aborted,
            )
            self._records.truth.write(truth)
        if self.on_end is not None:
            on_end, self.on_end = self.on_end, None  # it knows this reply: no cycle for the garbage collector
            on_end()
