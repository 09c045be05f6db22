"""Arrivals come from the kernel: a client that is busy for 100 ms reports the server's times all the same.

The server runs in a thread of its own with plain sockets, and says at which moments it really sent. Python's
threads share one lock, so the client is kept busy by a call that holds its event loop and gives up the lock.
"""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import contextlib
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme

from loadgen.transport import _reader as reader
from loadgen.transport._http import StampedHandler

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps arrivals")

BLOCKED_MS = 100
"""How long the client stays blocked after the server has sent its third event."""
GAP_MS = 60
EVENTS, UNSEEN = 5, 3
"""The server sends `UNSEEN` events while the client may not look, the others when it does again."""
TOLERANCE_MS = 25
"""For two busy cores; the blocked client is later than this by far if stamps are not used."""


@dataclass
class Server:
    """Answers one request: events one gap apart, but the second waits for `blocked`, the last for `go_on`."""

    tls: ssl.SSLContext | None = None
    sent_ns: list[int] = field(default_factory=list)
    """CLOCK_MONOTONIC just before each event was sent."""
    blocked: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Server:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(1 << 16)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for event in range(EVENTS):
            if event in (1, UNSEEN):
                (self.blocked if event == 1 else self.go_on).wait(5)
            time.sleep(GAP_MS / 1000)
            self.sent_ns.append(time.monotonic_ns())
            connection.sendall(_chunk({"choices": [{"delta": {"content": "word "}}]}))
        connection.sendall(_chunk({"choices": [{"delta": {}, "finish_reason": "stop"}]}) + b"0\r\n\r\n")

    def gaps_ms(self) -> list[float]:
        return [(at - self.sent_ns[0]) / 1e6 for at in self.sent_ns]


def _chunk(data: dict[str, Any]) -> bytes:
    event = b"data: " + json.dumps(data).encode() + b"\n\n"
    return b"%x\r\n" % len(event) + event + b"\r\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["plain", "TLS"])
def server(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Server]:
    tls = None
    if request.param == "TLS":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
    with Server(tls) as started:
        yield started


async def _turn(client: Any, server: Server, authority: trustme.CA, clock: str) -> Any:
    """The record of one turn whose client is blocked from its first event on until after the third."""
    trusted = ssl.create_default_context() if server.tls else None
    if trusted is not None:
        authority.configure_trust(trusted)
    person = client(server.url, tls=trusted, clock=clock)
    user = person.start()
    await _until_read(person, 1)
    server.blocked.set()
    while len(server.sent_ns) < UNSEEN:  # this and the next line are the fault under test
        time.sleep(0.001)  # noqa: ASYNC251
    time.sleep(BLOCKED_MS / 1000)  # noqa: ASYNC251
    await _until_read(person, UNSEEN)
    server.go_on.set()
    await person.ended(user)
    (record,) = person.records
    assert (record.outcome, record.clock, len(record.event_us)) == ("ok", clock, EVENTS)
    return record


async def _until_read(person: Any, events: int) -> None:
    async with asyncio.timeout(5):
        while sum(exchange.log.raw.count(b"word ") for exchange in person.driver.run.in_flight) < events:
            await asyncio.sleep(0.001)


def _gaps_ms(record: Any) -> list[float]:
    return [(at - record.event_us[0]) / 1000 for at in record.event_us]


@pytest.mark.timing
async def test_a_blocked_client_reports_when_the_events_really_came(
    client: Any, server: Server, authority: trustme.CA
) -> None:
    """Events that share a read carry the arrival of its last byte: here the second and third."""
    record = await _turn(client, server, authority, "kernel")
    found, true = _gaps_ms(record), server.gaps_ms()
    assert found[2] == pytest.approx(true[2], abs=TOLERANCE_MS), "came while the client was blocked"
    assert found[3:] == pytest.approx(true[3:], abs=TOLERANCE_MS), "came while it was not"
    assert record.lag_us_max / 1000 > BLOCKED_MS - TOLERANCE_MS, "the delay is told"
    if server.tls is None:
        assert record.coalesced == 1


@pytest.mark.timing
async def test_the_users_clock_shows_a_blocked_client_as_a_slow_server(
    client: Any, server: Server, authority: trustme.CA
) -> None:
    """The same run without stamps is wrong by far: else the test above would show nothing."""
    record = await _turn(client, server, authority, "user")
    found, true = _gaps_ms(record), server.gaps_ms()
    assert found[2] - true[2] > BLOCKED_MS - TOLERANCE_MS
    assert record.lag_us_max / 1000 > BLOCKED_MS - TOLERANCE_MS


async def test_arrivals_that_the_kernel_left_unstamped_are_not_called_the_kernels(
    client: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = iter([True, False])
    real = reader.kernel_stamp_ns
    monkeypatch.setattr(reader, "kernel_stamp_ns", lambda said: real(said) if next(stamps, True) else None)

    async def script(peer: Any) -> None:
        while True:
            await peer.answer("Hi", " there")

    server = await serve(script)
    person = client(server.url, clock="kernel")
    for _ in range(3):
        await person.ended(person.start())
    assert sorted(record.clock for record in person.records) == ["kernel", "kernel", "user"]


async def test_the_first_token_is_timed_from_the_request_and_not_from_the_connection(
    client: Any, serve: Any
) -> None:
    """A server slow to accept must not look slow to answer."""

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await asyncio.sleep(0.1)
        await peer.finish(peer.words("Hi") + peer.END)

    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def slowly(*args: Any) -> None:
        await asyncio.sleep(0.3)
        await connect(*args)

    loop.sock_connect = slowly  # type: ignore[method-assign]
    server = await serve(script)
    person = client(server.url)
    await person.ended(person.start())
    (record,) = person.records
    assert record.connect_us / 1000 >= 300
    assert record.event_us[0] / 1000 >= 100
    assert record.sent_ns - record.due_ns >= 300_000_000, "the time starts after the connection"


async def test_on_a_reused_connection_asyncio_reads_nothing_either(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would give bytes without a stamp; aiohttp asks it to read on at the end of every response."""
    transports = asyncio.selector_events._SelectorSocketTransport
    ready = transports._read_ready
    reads = 0

    def counted(transport: Any) -> None:
        nonlocal reads
        reads += isinstance(transport.get_protocol(), StampedHandler)
        ready(transport)

    monkeypatch.setattr(transports, "_read_ready", counted)

    async def script(peer: Any) -> None:
        while True:
            await peer.answer("Hi", " there")

    played = await play(script, turns=2, clock="kernel")
    assert [record.outcome for record in played.records] == ["ok", "ok"]
    assert (played.server.connections, reads) == (1, 0)
