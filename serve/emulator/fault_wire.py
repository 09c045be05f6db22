"""Stands between a reply and its connection, and lets the answer through only as the fault wants it.

It takes the reply's framed writes apart into events again: slow, but only requests with a fault come here.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator

from serve.emulator.clock import monotonic_ns
from serve.emulator.connection import Connection, Sent
from serve.emulator.connection import Reply as Abandoned
from serve.emulator.events import framed
from serve.emulator.fault_events import EDITS, content_of, event
from serve.emulator.fault_file import Fault
from serve.emulator.reactor import Reactor

DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


class FaultyWire:
    """To a reply the same as its connection."""

    def __init__(self, connection: Connection, reactor: Reactor, fault: Fault) -> None:
        self._connection = connection
        self._reactor = reactor
        self._fault = fault
        self._passed = 0
        self._over = False
        self._first = True
        self._held: list[tuple[bytes, Sent | None]] = []
        self._pieces: deque[tuple[bytes, Sent | None]] = deque()
        self._gzip = zlib.compressobj(wbits=31)

    @property
    def reply(self) -> Abandoned | None:
        return self._connection.reply

    @reply.setter
    def reply(self, reply: Abandoned | None) -> None:
        self._connection.reply = reply

    def done(self) -> None:
        self._connection.done()

    def respond(self, status: int, body: bytes, content_type: str, sent: Sent | None = None) -> None:
        """An answer in one piece has no events: a break comes before it, anything else leaves it whole."""
        if self._breaks():
            self._break()
        else:
            self._connection.respond(status, body, content_type, sent)

    def hand_over(self, data: bytes, later: Sent | None) -> int:
        """As a connection's, but always told later."""
        self.write(data, later)
        return 0

    def write(self, data: bytes, sent: Sent | None = None) -> None:
        """Take one write of the reply: a head, events, the end, or several of these."""
        head, events, ends = unframe(data)
        if head and not self._over:
            self._put(self._headed(head), sent if not (events or ends) else None)
        for index, each in enumerate(events):
            if not self._over:
                self._event(each, sent if index == len(events) - 1 and not ends else None)
        if ends and not self._over:
            self._end(sent)

    def _headed(self, head: bytes) -> bytes:
        if self._fault.kind != "gzip":
            return head
        return head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")

    def _event(self, each: bytes, sent: Sent | None) -> None:
        fault = self._fault
        if content_of(each) and self._passed == fault.after_events:
            if self._breaks():
                self._break()
                return
            self._inject()
            if self._over:
                return
        if content_of(each):
            self._passed += 1
        if each == DONE and fault.kind == "endless":
            return
        edit = EDITS.get(fault.kind)
        edited = edit(fault, each, self._first) if edit else each
        self._first = False
        if edited:
            self._put(self._body(edited), sent)
        elif sent is not None:
            sent(monotonic_ns())

    def _inject(self) -> None:
        """An event of the fault's own, in front of the next one."""
        kind = self._fault.kind
        if kind == "bad_json":
            self._put(framed(b'data: {"choices": [{"index": 0, "delta": {"content": \n\n'), None)
        elif kind == "oversized":
            text = "x" * self._fault.bytes
            self._put(framed(event({"choices": [{"index": 0, "delta": {"content": text}}]})), None)
        elif kind == "error_event":
            error = {"message": "The engine has failed.", "type": "InternalServerError", "code": 500}
            self._put(framed(event({"error": error})) + framed(DONE) + END, None)
            self._leave()

    def _breaks(self) -> bool:
        return self._fault.kind in ("reset", "eof", "hang")

    def _break(self) -> None:
        """The stream ends here, in the fault's way."""
        self._over = True
        if self._fault.kind == "reset":
            self._connection.reset()
        elif self._fault.kind == "eof" and self._fault.end == "connection":
            self._connection.close()
        elif self._fault.kind == "eof":
            self._connection.write(END)
            self._leave()

    def _leave(self) -> None:
        """No more of this reply; the connection is free for the next."""
        self._over = True
        if (reply := self._connection.reply) is not None:
            reply.abandon()
        self._connection.done()

    def _end(self, sent: Sent | None) -> None:
        if self._breaks():
            self._break()
        elif self._fault.kind == "endless":
            self._reactor.at(monotonic_ns(), self._again)
        else:
            rest = framed(self._gzip.flush()) if self._fault.kind == "gzip" else b""
            self._put(rest + END, sent, last=True)

    def _again(self, due_ns: int) -> int | None:
        self._connection.write(framed(event({"choices": [{"index": 0, "delta": {"content": " more"}}]})))
        return due_ns + max(self._fault.gap_ns, 1) if self._connection.open else None

    def _body(self, each: bytes) -> bytes:
        if self._fault.kind != "gzip":
            return framed(each)
        return framed(self._gzip.compress(each) + self._gzip.flush(zlib.Z_SYNC_FLUSH))

    def _put(self, data: bytes, sent: Sent | None, last: bool = False) -> None:
        """Send at once, together with others, or bit by bit."""
        if self._fault.kind == "coalesce":
            self._held.append((data, sent))
            if last or len(self._held) >= self._fault.events:
                self._release()
        elif self._fault.kind in ("drip", "split"):
            self._queue(data, sent)
        else:
            self._connection.write(data, sent)

    def _release(self) -> None:
        held, self._held = self._held, []

        def all_sent(now_ns: int) -> None:
            for _, sent in held:
                if sent is not None:
                    sent(now_ns)

        self._connection.write(b"".join(data for data, _ in held), all_sent)

    def _queue(self, data: bytes, sent: Sent | None) -> None:
        size = self._fault.bytes or len(data)
        whole = self._fault.kind == "drip" and self._passed <= self._fault.after_events
        pieces = [data] if whole else [data[at : at + size] for at in range(0, len(data), size)]
        idle = not self._pieces
        self._pieces.extend((piece, None) for piece in pieces[:-1])
        self._pieces.append((pieces[-1], sent))
        if idle:
            self._reactor.at(monotonic_ns() + (0 if whole else self._fault.gap_ns), self._next_piece)

    def _next_piece(self, due_ns: int) -> int | None:
        if not self._connection.open:
            return None
        data, sent = self._pieces[0]
        self._connection.write(data, sent)
        self._pieces.popleft()
        return due_ns + self._fault.gap_ns if self._pieces else None


def unframe(data: bytes) -> tuple[bytes, list[bytes], bool]:
    """Head, chunk payloads and whether the body ends; every write of a reply is made of whole ones."""
    head = b""
    if data.startswith(b"HTTP/"):
        cut = data.index(b"\r\n\r\n") + 4
        head, data = data[:cut], data[cut:]
    events = list(_chunks(data))
    return head, [each for each in events if each], b"" in events


def _chunks(data: bytes) -> Iterator[bytes]:
    while data:
        size_line, data = data.split(b"\r\n", 1)
        size = int(size_line, 16)
        yield data[:size]
        data = data[size + 2 :]
