"""Faults on purpose: gives each request the fault of its number, and bends the reply in the fault's way.

A bent reply's framed writes are taken apart into events again. That is slow, but only requests with a fault
come here.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from http import HTTPStatus
from time import monotonic_ns
from typing import Any

from serve.emulator.connection import ClientConnection, Sent
from serve.emulator.dialects import EmulatedDialect
from serve.emulator.dialects.choices import framed
from serve.emulator.fault_plan import (
    CoalesceFault,
    DieFault,
    DripFault,
    EndlessFault,
    EofFault,
    Fault,
    FaultPlan,
    FreezeFault,
    HangFault,
    HtmlFault,
    LaterFault,
    OversizedFault,
    ReasoningFault,
    RedirectFault,
    ResetFault,
    SplitFault,
    StatusFault,
    UsageFault,
)
from serve.emulator.reactor import Reactor

DIED = 70
"""Exit code of an emulator with the fault `die`."""
PAGE = b"<!doctype html><html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>\n"
BOM = b"\xef\xbb\xbf"
DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


class FaultInjector:
    """Counts the requests and gives each the fault of its number, if it has one."""

    def __init__(self, plan: FaultPlan, reactor: Reactor) -> None:
        self._plan = plan
        self._reactor = reactor
        self._asked = 0

    def meet(
        self, connection: ClientConnection, dialect: EmulatedDialect
    ) -> ClientConnection | FaultyChannel | None:
        """Where the answer to the next request goes; None if the fault has taken care of the request."""
        self._asked += 1
        match fault := self._plan.fault(self._asked):
            case None:
                return connection
            case FreezeFault():
                time.sleep(fault.for_ns / 1e9)
                return connection
            case DieFault():
                os._exit(DIED)
            case StatusFault() | RedirectFault() | HtmlFault():
                _answer(connection, fault)
            case ResetFault(after_events=0):
                connection.reset()
            case EofFault(after_events=0):
                connection.close()
            case HangFault(after_events=0):
                pass  # not one byte: the request waits until the client goes
            case _:
                return FaultyChannel(connection, self._reactor, fault, dialect)
        return None


def _answer(connection: ClientConnection, fault: StatusFault | RedirectFault | HtmlFault) -> None:
    """A whole answer of the fault's own."""
    status = 200 if isinstance(fault, HtmlFault) else fault.status
    reason = {each.value: each.phrase for each in HTTPStatus}.get(status, "Odd")
    lines = [f"HTTP/1.1 {status} {reason}", "Server: turnbench-emulator", "X-Turnbench-Emulated: 1"]
    # An error object, padded to the size that was asked for.
    text = '{"error":{"message":"asked for by --faults %s","type":"FaultInjected","param":null,"code":%d}}'
    size = fault.body_bytes if isinstance(fault, StatusFault) else 0
    body = (text % ("x" * max(0, size - len(text % ("", status))), status)).encode()
    kind = "application/json"
    if isinstance(fault, HtmlFault):
        body, kind = PAGE, "text/html; charset=utf-8"
    elif isinstance(fault, RedirectFault):
        lines.append(f"Location: {fault.location}")
    elif fault.retry_after_s is not None:
        lines.append(f"Retry-After: {fault.retry_after_s}")
    lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    connection.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    connection.done()


class FaultyChannel:
    """To a reply the same as its connection; it lets the answer through only as the fault wants it."""

    def __init__(
        self, connection: ClientConnection, reactor: Reactor, fault: Fault, dialect: EmulatedDialect
    ) -> None:
        self._connection = connection
        self._reactor = reactor
        self._fault = fault
        self._dialect = dialect
        self._breaks = isinstance(fault, ResetFault | EofFault | HangFault)
        self._passed = 0
        """Events with text that went through."""
        self._over = False
        self._first = True
        self._held: list[tuple[bytes, Sent | None]] = []
        self._pieces: deque[tuple[bytes, Sent | None]] = deque()
        self._gzip = zlib.compressobj(wbits=31) if fault.fault == "gzip" else None

    def set_abandon(self, abandon: Callable[[], None] | None) -> None:
        """What to call if the client goes, or the fault ends the reply."""
        self._connection.set_abandon(abandon)

    def done(self) -> None:
        """The response is complete."""
        self._connection.done()

    def respond(self, status: int, body: bytes, content_type: str, sent: Sent | None = None) -> None:
        """An answer in one piece has no events: a break comes before it, anything else leaves it whole."""
        if self._breaks:
            self._break()
        else:
            self._connection.respond(status, body, content_type, sent)

    def hand_over(self, data: bytes, later: Sent | None) -> int:
        """As a connection's, but `later` is always called."""
        self.write(data, later)
        return 0

    def write(self, data: bytes, sent: Sent | None = None) -> None:
        """Take one write of the reply: a head, events, the end, or several of these."""
        head, events, ends = unframe(data)
        if head and not self._over:
            if self._gzip:
                head = head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
            self._put(head, sent if not (events or ends) else None)
        for index, each in enumerate(events):
            if not self._over:
                self._event(each, sent if index == len(events) - 1 and not ends else None)
        if ends and not self._over:
            self._end(sent)

    def _event(self, each: bytes, sent: Sent | None) -> None:
        fault = self._fault
        data = parsed(each)
        if data is not None and self._dialect.text_of(data):
            if isinstance(fault, LaterFault) and self._passed == fault.after_events:
                if self._breaks:
                    self._break()
                    return
                self._insert()
                if self._over:
                    return
            self._passed += 1
        if isinstance(fault, EndlessFault) and (data is None or self._dialect.is_end(data)):
            return
        bent = self._bent(each, data)
        self._first = False
        if bent:
            body = bent
            if self._gzip:
                body = self._gzip.compress(bent) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
            self._put(framed(body), sent)
        elif sent is not None:
            sent(monotonic_ns())

    def _bent(self, each: bytes, data: Any | None) -> bytes:
        """The event as the fault wants it; nothing if it is to be missing."""
        match self._fault.fault:
            case "crlf":
                return each.replace(b"\n", b"\r\n")
            case "cr":
                return each.replace(b"\n", b"\r")
            case "bom":
                return BOM + each if self._first else each
            case "comments":
                return b": still here\n\n:\n" + each
            case "event_lines":
                return b"event: message\nid: 7\nretry: 1000\nnonsense\n" + each
        if data is None:
            return each
        has_text, counts = bool(self._dialect.text_of(data)), self._dialect.counts_of(data)
        match self._fault:
            case Fault(fault="multi_line"):
                lines = json.dumps(data, indent=1).encode().split(b"\n")
                type_line, _, _ = each.rpartition(b"data: ")
                return type_line + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
            case Fault(fault="empty") if has_text:
                bare = self._dialect.without_text(data)
                return b"" if bare is None else event(bare)
            case ReasoningFault() if has_text:
                return event(self._dialect.as_reasoning(data, self._fault.key))
            case Fault(fault="usage_absent") if counts is not None or data.get("usage") is not None:
                if counts is not None:
                    counts[0].clear()
                data.pop("usage", None)
                carries_more = data.get("choices") or data.get("type") or self._dialect.is_end(data)
                return event(data) if carries_more else b""
            case UsageFault() if counts is not None:
                usage, output = counts
                for name in {output, "total_tokens"} & usage.keys():
                    usage[name] += self._fault.by
                return event(data)
        return each

    def _insert(self) -> None:
        """An event of the fault's own, in front of the next one."""
        if self._fault.fault == "bad_json":
            self._put(framed(b'data: {"choices": [{"index": 0, "delta": {"content": \n\n'), None)
        elif isinstance(self._fault, OversizedFault):
            self._put(framed(event(self._dialect.text_event("x" * self._fault.bytes))), None)
        elif self._fault.fault == "error_event":
            error = {"message": "The engine has failed.", "type": "InternalServerError", "code": 500}
            done = b"" if self._dialect.error_event(error).get("type") else framed(DONE)
            self._put(framed(event(self._dialect.error_event(error))) + done + END, None)
            self._leave()

    def _break(self) -> None:
        """The stream ends here, in the fault's way."""
        self._over = True
        if isinstance(self._fault, ResetFault):
            self._connection.reset()
        elif isinstance(self._fault, EofFault) and self._fault.end == "connection":
            self._connection.close()
        elif isinstance(self._fault, EofFault):
            self._connection.write(END)
            self._leave()

    def _leave(self) -> None:
        """No more of this reply; the connection is free for the next."""
        self._over = True
        self._connection.abandon_reply()
        self._connection.done()

    def _end(self, sent: Sent | None) -> None:
        if self._breaks:
            self._break()
        elif isinstance(self._fault, EndlessFault):
            self._reactor.at(monotonic_ns(), self._again)
        else:
            rest = framed(self._gzip.flush()) if self._gzip else b""
            self._put(rest + END, sent, last=True)

    def _again(self, due_ns: int) -> int | None:
        assert isinstance(self._fault, EndlessFault)
        self._connection.write(framed(event(self._dialect.text_event(" more"))))
        return due_ns + max(self._fault.gap_ns, 1) if self._connection.open else None

    def _put(self, data: bytes, sent: Sent | None, last: bool = False) -> None:
        """Send at once, together with others, or bit by bit."""
        if isinstance(self._fault, CoalesceFault):
            self._held.append((data, sent))
            if last or len(self._held) >= self._fault.events:
                self._release()
        elif isinstance(self._fault, DripFault | SplitFault):
            self._queue(self._fault, data, sent)
        else:
            self._connection.write(data, sent)

    def _release(self) -> None:
        held, self._held = self._held, []

        def all_sent(now_ns: int) -> None:
            for _, sent in held:
                if sent is not None:
                    sent(now_ns)

        self._connection.write(b"".join(data for data, _ in held), all_sent)

    def _queue(self, fault: DripFault | SplitFault, data: bytes, sent: Sent | None) -> None:
        size = fault.bytes or len(data)
        whole = isinstance(fault, DripFault) and self._passed <= fault.after_events
        pieces = [data] if whole else [data[at : at + size] for at in range(0, len(data), size)]
        idle = not self._pieces
        self._pieces.extend((piece, None) for piece in pieces[:-1])
        self._pieces.append((pieces[-1], sent))

        def next_piece(due_ns: int) -> int | None:
            if not self._connection.open:
                return None
            data, sent = self._pieces[0]
            self._connection.write(data, sent)
            self._pieces.popleft()
            return due_ns + fault.gap_ns if self._pieces else None

        if idle:
            self._reactor.at(monotonic_ns() + (0 if whole else fault.gap_ns), next_piece)


def event(data: Any) -> bytes:
    """One event of a stream, with the line of its type where it has one."""
    kind = data.get("type")
    return (f"event: {kind}\n".encode() if kind else b"") + b"data: " + json.dumps(data).encode() + b"\n\n"


def parsed(each: bytes) -> Any | None:
    """What an event carries; None for the end mark, and for what is no server-sent event."""
    _, data, rest = each.partition(b"data: ")
    text = rest.strip()
    return json.loads(text) if data and text != b"[DONE]" else None


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
