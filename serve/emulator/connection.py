"""One HTTP/1.1 connection of the emulator: parses requests, writes bytes and says when they really left.

A write goes straight to the socket. If the kernel takes all of it, the moment after is its time; if not, the
rest waits here and is stamped when its last byte has gone.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic_ns

import httptools

from serve.emulator.reactor import Reactor
from turnbench.clock import ANCILLARY_BYTES, Ancillary, ask_for_stamps, kernel_stamp_ns

READ_BYTES = 65_536
MAX_BODY_BYTES = 32 * 1024 * 1024

_BUSY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    505: "HTTP Version Not Supported",
}

Sent = Callable[[int], None]
"""Called with the moment (monotonic ns) at which a write was wholly handed to the kernel."""


class BadHttpRequest(Exception):
    """What came is no request that can be answered; `status` and text say why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True)
class HttpRequest:
    """One request, complete. `received_ns` is the monotonic moment its last byte came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    received_ns: int
    keep_alive: bool
    version: str


@dataclass(slots=True)
class _UnfinishedRequest:
    url: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    body: list[bytes] = field(default_factory=list)
    size: int = 0


class RequestReader:
    """Collects complete requests in `ready`; calls `go_on` for a client that waits before it sends a body."""

    def __init__(self, go_on: Callable[[], None]) -> None:
        self.ready: deque[HttpRequest] = deque()
        self._go_on = go_on
        self._parser = httptools.HttpRequestParser(self)
        self._draft = _UnfinishedRequest()
        self._arrived_ns = 0

    def feed(self, data: bytes, arrived_ns: int) -> None:
        """Take the next bytes, which came at that monotonic moment; raises BadHttpRequest."""
        self._arrived_ns = arrived_ns
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise BadHttpRequest(400, "Invalid HTTP request received.") from None
        if self._draft.size > MAX_BODY_BYTES:
            raise BadHttpRequest(413, "The request body is larger than 32 MiB.")

    # Called by the parser

    def on_message_begin(self) -> None:
        self._draft = _UnfinishedRequest()

    def on_url(self, url: bytes) -> None:
        self._draft.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._draft.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._draft.headers.get("expect", "").lower() == "100-continue":
            self._go_on()

    def on_body(self, body: bytes) -> None:
        self._draft.size += len(body)
        if self._draft.size <= MAX_BODY_BYTES:
            self._draft.body.append(body)

    def on_message_complete(self) -> None:
        draft, parser = self._draft, self._parser
        self.ready.append(
            HttpRequest(
                method=parser.get_method().decode("ascii"),
                path=draft.url.split(b"?", 1)[0].decode("latin-1"),
                headers=draft.headers,
                body=b"".join(draft.body),
                received_ns=self._arrived_ns,
                keep_alive=parser.should_keep_alive(),
                version=parser.get_http_version(),
            )
        )


def stamp_arrivals(sock: socket.socket) -> None:
    """Have the kernel say when it received what is read; elsewhere `arrival_ns` says when it was read."""
    with contextlib.suppress(OSError):
        ask_for_stamps(sock)


def arrival_ns(ancillary: Ancillary) -> int:
    """The monotonic moment at which the kernel received the last byte of a read: now minus the stamp's age.

    A request that came while this process was busy came when it came, not when it was looked at.
    """
    stamp_ns = kernel_stamp_ns(ancillary)
    age_ns = 0 if stamp_ns is None else max(time.time_ns() - stamp_ns, 0)
    return monotonic_ns() - age_ns


class ClientConnection:
    """A client's connection. `serve(connection, request)` is called for one request at a time."""

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        serve: Callable[[ClientConnection, HttpRequest], None],
        closed: Callable[[ClientConnection], None],
        idle_ns: int | None = None,
    ) -> None:
        self.open = True
        self._abandon: Callable[[], None] | None = None
        self._reactor = reactor
        self._sock = sock
        self._send = sock.send
        self._serve = serve
        self._closed = closed
        self._idle_ns = idle_ns
        self._idle_since_ns = monotonic_ns()
        self._requests = RequestReader(self._go_on)
        self._backlog: deque[tuple[memoryview, Sent | None]] = deque()
        self._busy = False
        self._closing = False
        self._choosing = False
        self._ciphertext_ns = 0
        """Under TLS, when what was last decrypted came."""
        self._handshake_done = not isinstance(sock, ssl.SSLSocket)
        stamp_arrivals(sock)
        reactor.watch(sock, selectors.EVENT_READ, self._ready)
        self._rest()

    def set_abandon(self, abandon: Callable[[], None] | None) -> None:
        """What to call if the client goes before `done`."""
        self._abandon = abandon

    def abandon_reply(self) -> None:
        """The reply under way, if there is one, will not be sent to its end."""
        if self._abandon is not None:
            abandon, self._abandon = self._abandon, None
            abandon()

    # Writing

    def write(self, data: bytes, sent: Sent | None = None) -> None:
        """Hand bytes to the kernel now, or as soon as it takes them, then call `sent`."""
        now_ns = self.hand_over(data, sent)
        if now_ns and sent is not None:
            sent(now_ns)

    def hand_over(self, data: bytes, later: Sent | None) -> int:
        """The moment at which the kernel took all of it; 0 if it did not yet, and then `later` is called."""
        if not self.open:
            return 0
        if self._backlog:
            self._backlog.append((memoryview(data), later))
            return 0
        try:
            taken = self._send(data)
        except _BUSY:
            taken = 0
        except OSError:
            self.close()
            return 0
        if taken == len(data):
            return monotonic_ns()
        self._backlog.append((memoryview(data)[taken:], later))
        self._watch()
        return 0

    def _flush(self) -> None:
        while self._backlog and self.open:
            data, sent = self._backlog[0]
            try:
                taken = self._send(data)
            except _BUSY:
                return
            except OSError:
                self.close()
                return
            if taken < len(data):
                self._backlog[0] = (data[taken:], sent)
                continue
            self._backlog.popleft()
            if sent is not None:
                sent(monotonic_ns())
        if self.open:
            self._watch()
            if self._closing and not self._busy and not self._backlog:
                self.close()

    def respond(
        self, status: int, body: bytes, content_type: str, sent: Sent | None = None, more: str = ""
    ) -> None:
        """Answer with one whole body; `more` are further lines of the head, each ended."""
        self.write(head(status, content_type, f"{more}Content-Length: {len(body)}") + body, sent)

    def done(self) -> None:
        """The response is complete: serve the next request that came meanwhile, or close if asked to."""
        self._abandon = None
        self._busy = False
        if self._closing:
            if not self._backlog:
                self.close()
        else:
            self._next()
            self._rest()

    def _rest(self) -> None:
        """Nothing to do: with a limit on idleness the connection ends when it is over."""
        if self._idle_ns is not None and not self._busy and self.open:
            self._idle_since_ns = monotonic_ns()
            self._reactor.at(self._idle_since_ns + self._idle_ns, self._close_idle)

    def _close_idle(self, due_ns: int) -> None:
        assert self._idle_ns is not None
        if not self._busy and due_ns - self._idle_since_ns >= self._idle_ns:
            self.close()

    def reset(self) -> None:
        """Close so that the client sees the connection reset, not ended."""
        if self.open:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def close(self) -> None:
        """Close the socket; the reply under way is abandoned."""
        if not self.open:
            return
        self.open = False
        self._reactor.forget(self._sock)
        self._sock.close()
        self._backlog.clear()
        self._requests.ready.clear()
        self._closed(self)
        self.abandon_reply()

    # Reading

    def _watch(self) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._backlog else 0)
        self._reactor.watch(self._sock, events, self._ready)

    def _ready(self, mask: int) -> None:
        if not self._handshake_done and not self._shake_hands():
            return
        if mask & selectors.EVENT_WRITE:
            self._flush()
        if self.open:
            self._read()

    def _shake_hands(self) -> bool:
        assert isinstance(self._sock, ssl.SSLSocket)
        try:
            self._sock.do_handshake()
        except _BUSY:
            return False
        except OSError:
            self.close()
            return False
        self._handshake_done = True
        return True

    def _read(self) -> None:
        """Read until the kernel (and, under TLS, the decrypted rest) has nothing more."""
        while self.open:
            try:
                data, arrived_ns = self._receive()
            except _BUSY:
                return
            except OSError:
                data, arrived_ns = b"", 0
            if not data:
                self.close()
                return
            self._feed(data, arrived_ns)
            if len(data) < READ_BYTES and not isinstance(self._sock, ssl.SSLSocket):
                return

    def _receive(self) -> tuple[bytes, int]:
        """The next bytes and when they came; under TLS when the last of the ciphertext that waits came."""
        if not isinstance(self._sock, ssl.SSLSocket):
            data, ancillary, _, _ = self._sock.recvmsg(READ_BYTES, ANCILLARY_BYTES)
            return data, arrival_ns(ancillary)
        # SSLSocket refuses recvmsg, and OpenSSL's own read drops the stamp: so it is looked at beforehand.
        with contextlib.suppress(*_BUSY):
            _, ancillary, _, _ = socket.socket.recvmsg(
                self._sock, READ_BYTES, ANCILLARY_BYTES, socket.MSG_PEEK
            )
            self._ciphertext_ns = arrival_ns(ancillary)
        return self._sock.recv(READ_BYTES), self._ciphertext_ns

    def _feed(self, data: bytes, arrived_ns: int) -> None:
        try:
            self._requests.feed(data, arrived_ns)
        except BadHttpRequest as error:
            self._refuse(error.status, str(error))
            return
        self._next()

    def _go_on(self) -> None:
        if not self._busy:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, status: int, why: str) -> None:
        """Answer and close. Amid another response no answer can be put: close only."""
        if not self._busy:
            self.respond(status, why.encode(), "text/plain; charset=utf-8")
        self._closing, self._busy = True, False
        if not self._backlog or self._abandon is not None:
            self.close()

    def _next(self) -> None:
        """Serve what has been read, one request after the other's response; `done` may call back in here."""
        if self._choosing:
            return
        self._choosing = True
        while self._requests.ready and not self._busy and not self._closing:
            request = self._requests.ready.popleft()
            if request.version != "1.1":
                self._refuse(505, "HTTP/1.1 is needed.")
                break
            self._busy = True
            self._closing = not request.keep_alive
            self._serve(self, request)
        self._choosing = False


def head(status: int, content_type: str, framing: str) -> bytes:
    """A response's head; every one says that no model was measured here."""
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    return (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nServer: turnbench-emulator\r\nX-Turnbench-Emulated: 1\r\n"
        f"{kind}{framing}\r\n\r\n"
    ).encode("ascii")
